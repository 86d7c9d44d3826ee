"""Loading of policies from `tiny`, a transformers folder, a hub id, a GGUF file or a stage, and saving to disk."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast
from transformers.utils import logging

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.local import find_local
from gemsmith.contracts.reading import read_json, reading
from gemsmith.policy.attention.attention import implementation
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.liti_points import point_on_line
from gemsmith.policy.loading.gguf_file import load_gguf
from gemsmith.policy.loading.model_files import reading_model
from gemsmith.policy.loading.multimodal import KEY_MAPPING, forget_multimodal
from gemsmith.policy.loading.rope import check_window, rescale_context
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.text.chat import CHAT_TEMPLATE
from gemsmith.policy.text.template_check import check_template
from gemsmith.weights.checkpoint import whole_folder

END_IDS = {"<eos>": 1, "<end_of_turn>": 106}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_RELEASED = "put the released one beside the weights"
_EXPECTED = "expected `tiny`, a hub id such as google/gemma-3-1b-pt, a transformers folder, or a .gguf file"


def load_policy(
    config: PolicyConfig,
    inputs: Mapping[str, Path] = MappingProxyType({}),
    root: Path = Path("."),
    *,
    seed: int = 0,
    tokens: int | None = None,
) -> Policy:
    """Return a policy in evaluation mode, on this process's GPU if there is one, with both of Gemma's end ids.

    Args:
        config: the policy to load.
        inputs: output folder of each earlier stage, for `from`.
        root: the recipe's folder; a relative path is beside it, else in the working folder.
        seed: seed of the weights of `tiny`.
        tokens: longest sequence that the policy will process (a stage's `max_length`); None to skip the check.

    Raises:
        UserError: the weights do not exist, cannot be read, are not a Gemma 3's, have too short a context, or contain
            NaN.
    """
    dtype, device = _dtype(config), _device()
    attention = implementation(config.attention)
    source = weights_source(config, inputs, root)
    if source == "tiny":
        policy = tiny_policy(config.size, seed)
        policy.model.set_attn_implementation(attention)
    elif isinstance(source, Path) and source.is_file():
        policy = load_gguf(source, dtype, attention)
    else:
        policy = _load_transformers(source, dtype, attention)
    if config.rope is not None:
        rescale_context(policy.model, config.rope.factor)
    _check_context(policy.model.config, tokens, source)
    _complete(policy, source)
    _check_numbers(policy, source)
    policy.model.to(device=device, dtype=dtype).eval()
    return policy


def save_policy(policy: Policy, folder: Path, add_files: Callable[[Path], None] | None = None) -> None:
    """Write a transformers folder that appears complete or not at all, and loads with the same bits.

    Args:
        policy: the policy to write.
        folder: the folder to write.
        add_files: function that writes more files into the folder before it is moved into place.

    Raises:
        RunError: the disk refused a write (full, read-only).
    """
    try:
        with whole_folder(folder) as part:
            policy.model.save_pretrained(part)
            policy.tokenizer.save_pretrained(part)
            if add_files is not None:
                add_files(part)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"The policy could not be written to {folder} ({_first_line(error)}): fix the cause, such as a full disk, "
            "and run the same command again."
        ) from error


def _dtype(config: PolicyConfig) -> torch.dtype:
    if config.dtype == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return torch.float32 if config.dtype == "float32" else torch.bfloat16


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def weights_source(config: PolicyConfig, inputs: Mapping[str, Path], root: Path) -> Path | str:
    """Return the folder or file to read, or else `tiny` or a hub id.

    Raises:
        UserError: it does not exist.
    """
    if config.from_ is not None:
        if config.from_ not in inputs:
            raise UserError(f"`from: {config.from_}` is not a stage that ran before this one; name an earlier stage.")
        return stage_policy(inputs[config.from_], config.liti)
    name = str(config.model)
    if name == "tiny":
        return name
    path = find_local(root, name) or root / Path(name).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path
    if path.suffix == ".gguf" or path.is_file() or not _HUB_ID.fullmatch(name):
        found = "a file that is not a .gguf file" if path.is_file() else "nothing"
        elsewhere = "" if path.exists() or path.is_absolute() else f" or in the working folder {Path.cwd()}"
        raise UserError(f"`model: {name}` is {found} at {path}{elsewhere}: {_EXPECTED}.")
    return name


def stage_policy(output: Path, liti: float | None) -> Path:
    """Return the folder of a stage's policy, or of the point at the rate `liti` of its line."""
    return output if liti is None else point_on_line(output, liti)


def _load_transformers(source: Path | str, dtype: torch.dtype, attention: str) -> Policy:
    config = _text_config(source)
    shown = logging.get_verbosity()
    logging.set_verbosity_error()  # else every tensor of a vision tower is listed as unexpected
    try:
        with reading_model(source, "the safetensors files of a Gemma 3", "download or save them again"):
            model, report = Gemma3ForCausalLM.from_pretrained(
                source,
                config=config,
                key_mapping=KEY_MAPPING,
                dtype=dtype,
                attn_implementation=attention,
                output_loading_info=True,
            )
    finally:
        logging.set_verbosity(shown)
    forget_multimodal(model)
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UserError(
            f"{source} lacks {len(missing)} of the model's tensors ({missing[0]}, ...): expected the complete weights "
            "of a Gemma 3 text model; download or save them again."
        )
    with reading_model(source, "the tokenizer of a Gemma 3", "put the tokenizer's files beside the weights"):
        tokenizer = AutoTokenizer.from_pretrained(source)
    return Policy(model, tokenizer)


def _text_config(source: Path | str) -> Gemma3TextConfig:
    """Return the configuration of the text model or text tower; reject other models before their weights are read."""
    if isinstance(source, Path):
        path = source / "config.json"
        _check_kind(read_json(path, "the config.json of a Gemma 3", _RELEASED).get("model_type"), source)
        with reading(path, "the config.json of a Gemma 3", _RELEASED):
            text: Gemma3TextConfig = AutoConfig.from_pretrained(source).get_text_config()
            check_window(text, source)
            return text
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise UserError(
            f"`model: {source}` is not a local folder, and the hub did not provide it ({_first_line(error)}); "
            "check the "
            "name, the network and your access (`hf auth login`), or give a folder or a .gguf file."
        ) from error
    except (StrictDataclassError, KeyError, TypeError, AttributeError) as error:
        raise _bad_config(source, error) from error
    _check_kind(config.model_type, source)
    text = config.get_text_config()
    check_window(text, source)
    return text


def _check_kind(kind: object, source: Path | str) -> None:
    if kind not in ("gemma3", "gemma3_text"):
        raise UserError(f"{source} is a model of type {kind!r}, but gemsmith trains only Gemma 3; {_EXPECTED}.")


def _bad_config(source: Path | str, error: Exception) -> UserError:
    reason = " ".join(str(error).split()).rstrip(".:") or type(error).__name__
    return UserError(
        f"The config.json of {source} is not that of a Gemma 3 ({reason}); put the released one beside the weights."
    )


def _check_context(config: Gemma3TextConfig, tokens: int | None, source: Path | str) -> None:
    context = config.max_position_embeddings
    if tokens is not None and tokens > context:
        raise UserError(
            f"max_length is {tokens} tokens and the context of {source} is {context}: lower max_length to it, or "
            "lengthen the context with `policy: {rope: {factor: ...}}`."
        )


def _complete(policy: Policy, source: Path | str) -> None:
    """Add what every policy has: Gemma's end ids, its chat format, and padding on the left."""
    tokenizer: PreTrainedTokenizerFast = policy.tokenizer
    found = {token: tokenizer.convert_tokens_to_ids(token) for token in END_IDS}
    if found != END_IDS:
        raise UserError(f"The tokenizer of {source} is not Gemma 3's: expected the ids {END_IDS}, found {found}.")
    ids = policy.model.generation_config.eos_token_id
    others = [i for i in (ids if isinstance(ids, list) else [ids]) if i is not None and i not in END_IDS.values()]
    if not all(isinstance(id, int) for id in others):
        raise UserError(f"{source}: found eos_token_id {ids!r} in generation_config.json, expected ids of tokens.")
    policy.model.generation_config.eos_token_id = [*END_IDS.values(), *others]
    tokenizer.padding_side = "left"
    if tokenizer.chat_template is None:
        tokenizer.chat_template = CHAT_TEMPLATE
    if not isinstance(tokenizer.chat_template, str):
        raise UserError(f"{source}: found several chat templates, expected one: keep Gemma 3's.")
    check_template(tokenizer.chat_template, source)


def _check_numbers(policy: Policy, source: Path | str) -> None:
    """Reject NaN and infinite weights: training and sampling would yield NaN."""
    for name, weight in policy.model.named_parameters():
        if weight.numel() and not all(bound.isfinite() for bound in weight.detach().aminmax()):  # NaN is both bounds
            raise UserError(
                f"{name} of {source} has a weight that is NaN or infinite: the file is damaged, or the training that "
                "wrote it diverged; download it again, or train it again with a lower learning_rate."
            )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".:") if str(error).strip() else type(error).__name__
