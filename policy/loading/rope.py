"""Longer context by linear interpolation of positions in the global layers only (Gemma 3 report, 2503.19786).

Local layers attend only within their window, so their positions do not change.
"""

from pathlib import Path

from transformers import Gemma3ForCausalLM, Gemma3TextConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding

from gemsmith.contracts.errors import UserError

GLOBAL = "full_attention"


def global_factor(config: Gemma3TextConfig) -> float:
    """Return the factor that divides the positions of the global layers; 1 if they are not rescaled.

    Raises:
        UserError: they are rescaled, but not linearly.
    """
    rope = config.rope_parameters[GLOBAL]
    if rope["rope_type"] not in ("default", "linear"):
        raise UserError(
            f"The checkpoint's global layers rescale positions by {rope['rope_type']!r}, and `rope: {{factor: ...}}` "
            "is linear; leave `rope` out, or start from a checkpoint that is not rescaled or is rescaled linearly."
        )
    return float(rope.get("factor", 1.0))


def rescale_context(model: Gemma3ForCausalLM, factor: float) -> None:
    """Divide the global layers' positions by `factor` in total, and lengthen the context to match; saved with the
    model.

    `factor` is relative to the unscaled model, so applying it twice changes nothing. gemma-3-4b, which is released at
    factor 8 and 131,072 tokens, has 262,144 tokens at 16.

    Raises:
        UserError: the checkpoint already has a larger factor, or is not rescaled linearly.
    """
    before = global_factor(model.config)
    if factor < before:
        raise UserError(
            f"`rope: {{factor: {factor:g}}}` is below the factor {before:g} that the checkpoint was trained with; "
            f"give {before:g} or more (relative to the unscaled model), or leave `rope` out to keep it."
        )
    set_global_factor(model, factor)
    model.config.max_position_embeddings = round(model.config.max_position_embeddings * factor / before)
    model.model.rotary_emb.max_seq_len_cached = model.config.max_position_embeddings
    model.model.rotary_emb.original_max_seq_len = model.config.max_position_embeddings


def set_global_factor(model: Gemma3ForCausalLM, factor: float) -> None:
    """Write the factor where transformers and vLLM read it, `rope_parameters` of the global layers, and apply it."""
    theta = model.config.rope_parameters[GLOBAL]["rope_theta"]
    scaled = {"rope_type": "default", "rope_theta": theta}
    if factor != 1.0:
        scaled = {"rope_type": "linear", "factor": float(factor), "rope_theta": theta}
    model.config.rope_parameters = {**model.config.rope_parameters, GLOBAL: scaled}
    model.model.rotary_emb = Gemma3RotaryEmbedding(model.config, device=model.model.embed_tokens.weight.device)


def check_window(config: Gemma3TextConfig, source: Path | str) -> None:
    """Reject a checkpoint whose local layers have no attention window.

    Raises:
        UserError: there are local layers, and their window is missing or below one token.
    """
    window = config.sliding_window
    if "sliding_attention" in config.layer_types and (window is None or window < 1):
        raise UserError(
            f"The local layers of {source} have a window of {window} tokens (`sliding_window` in its configuration): "
            "expected at least 1; Gemma 3's are 512 (270M, 1B) and 1024."
        )
