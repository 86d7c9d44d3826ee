"""The model `tiny`: a real Gemma 3 at toy width, for runs that take minutes on a laptop."""

from dataclasses import dataclass
from typing import Literal

import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from gemsmith.policy.policy import Policy
from gemsmith.policy.text.tokenizer import VOCABULARY_SIZE, tiny_tokenizer

Size = Literal["small", "large"]


@dataclass(frozen=True)
class _Shape:
    """Dimensions that differ between the sizes; heads have size 32, and two heads share keys and values with the
    others.
    """

    hidden: int
    intermediate: int
    heads: int
    layers: int


# Gemma's 0.02 suits its width; at this one learning starts three times sooner from 0.06 (measured on sums).
_INIT_RANGE = 0.06
# Heads of 32 under a query scale made for 256 would attend almost evenly at first: the gains of QK norm make up for it.
_QK_GAIN = (256 / 32) ** 0.25

_SHAPES: dict[Size, _Shape] = {
    "small": _Shape(hidden=128, intermediate=448, heads=4, layers=6),  # 1.4 million parameters
    "large": _Shape(hidden=224, intermediate=832, heads=4, layers=6),  # 4.0 million parameters
}


def tiny_config(size: Size = "small") -> Gemma3TextConfig:
    """Return a narrow Gemma 3: five local layers per global one, grouped queries, QK norm, a tied head.

    The window of 16 tokens is shorter than the sequences, so that local layers are really local.
    `query_pre_attn_scalar` stays 256 for every head size, because readers of GGUF files assume it.
    """
    shape = _SHAPES[size]
    return Gemma3TextConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=2,
        head_dim=32,
        query_pre_attn_scalar=256,
        max_position_embeddings=512,
        sliding_window=16,
        layer_types=["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(shape.layers)],
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
        },
        initializer_range=_INIT_RANGE,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=[1, 106],
        bos_token_id=2,
        dtype="float32",
        attn_implementation="sdpa",
    )


def tiny_policy(size: Size = "small", seed: int = 0) -> Policy:
    """Return a tiny policy with random float32 weights that depend only on the seed; torch's generator does not
    change.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Gemma3ForCausalLM(tiny_config(size))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                parameter.fill_(_QK_GAIN - 1.0)  # Gemma stores gains less one
    model.generation_config.eos_token_id = [1, 106]
    return Policy(model.eval(), tiny_tokenizer())
