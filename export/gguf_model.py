"""A policy as a GGUF file: keys and names of ggml's architecture `gemma3`, weights from weights/quantise.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import (
    GGML_QUANT_VERSION,
    MODEL_ARCH,
    GGMLQuantizationType,
    GGUFWriter,
    LlamaFileType,
    RopeScalingType,
    get_tensor_name_map,
)
from torch import Tensor
from transformers import Gemma3TextConfig

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.export.config import GgufType
from gemsmith.export.gguf_tokenizer import add_tokenizer
from gemsmith.policy.loading.rope import GLOBAL, global_factor
from gemsmith.policy.policy import Policy
from gemsmith.policy.quantised import Scheme, check_sizes, check_widths
from gemsmith.weights.formats import Array
from gemsmith.weights.quantise import packed, quantised

_FILE_TYPES = {"f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0, "q4_0": LlamaFileType.MOSTLY_Q4_0}
_HEAD = "lm_head.weight"  # the embedding: a file without an output matrix is read as tied


def gguf_scheme(kind: GgufType, embedding: GgufType | None, mark: Scheme | None) -> Scheme:
    """Return the formats of a file.

    Args:
        kind: format of the matrices of attention and MLP.
        embedding: format of the embedding. Default: as the policy's quantisation mark says, else float16 with Q4_0 (as
            in the files that Gemma 3 was released in), else the same as the matrices.
        mark: quantisation mark in the policy's folder.

    Raises:
        UserError: the policy was trained for another format than this four-bit one.
    """
    marked = mark.embedding if mark is not None and mark.format == kind else None
    if mark is not None and kind == "q4_0" and mark.format != "q4_0":
        raise UserError(
            f"the policy was trained for {mark.format}, and `gguf: q4_0` would round its weights once more: take "
            "`gguf: f16` or `q8_0`, or train it with `format: q4_0`"
        )
    usual = "f16" if kind == "q4_0" else kind
    return Scheme(kind, embedding or marked or usual)


def check_readable(policy: Policy, scheme: Scheme) -> None:
    """Reject settings that a reader of the file would assume differently, because the format has no key for them.

    Raises:
        UserError: a value differs from the one that readers assume, a row is not a multiple of 32 wide, or a weight is
            too large.
    """
    config = policy.model.config
    every_sixth = [GLOBAL if (i + 1) % 6 == 0 else "sliding_attention" for i in range(config.num_hidden_layers)]
    assumed: dict[str, tuple[Any, Any]] = {
        "query_pre_attn_scalar": (config.query_pre_attn_scalar, 256),
        "layer_types": (list(config.layer_types), every_sixth),
        "rope_theta of local layers": (config.rope_parameters["sliding_attention"]["rope_theta"], 10_000.0),
        "attention_bias": (bool(config.attention_bias), False),
        "attn_logit_softcapping": (config.attn_logit_softcapping, None),
        "final_logit_softcapping": (config.final_logit_softcapping, None),
        "hidden_activation": (config.hidden_activation, "gelu_pytorch_tanh"),
        "use_bidirectional_attention": (bool(config.use_bidirectional_attention), False),
    }
    for name, (found, expected) in assumed.items():
        if found != expected:
            raise UserError(
                f"the policy's {name} is {found}, and readers of a GGUF file assume {expected}, as it cannot be "
                "written there: take `formats: [transformers]`"
            )
    check_widths(policy.model, scheme, "take `gguf: f16`")
    check_sizes(policy.model, scheme)


def write_gguf(policy: Policy, path: Path, scheme: Scheme, title: str) -> None:
    """Write the file tensor by tensor, so that only one tensor is in memory twice.

    Args:
        policy: the policy, in float32.
        path: path of the file; the caller moves its folder into place when it is complete.
        scheme: formats from `gguf_scheme`.
        title: the model's name.

    Raises:
        UserError: the file exists already, or a reader would misread the policy.
        RunError: the disk refused a write.
    """
    if path.exists():
        raise UserError(f"{path} exists already; remove it or choose another name")
    check_readable(policy, scheme)
    writer = GGUFWriter(path, "gemma3")
    try:
        _add_keys(writer, policy, scheme, title)
        add_tokenizer(writer, policy)
        for name, kind, shape in _infos(policy, scheme):
            data = np.dtype(np.float32 if kind == "f32" else np.float16 if kind == "f16" else np.uint8)
            size = int(np.prod(shape)) * data.itemsize
            writer.add_tensor_info(name, shape, data, size, raw_dtype=GGMLQuantizationType[kind.upper()])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, kind, weight in stored_tensors(policy, scheme):
            writer.write_tensor_data(stored(weight, kind))
    except OSError as error:
        raise RunError(
            f"The GGUF file {path} could not be written ({error}). Fix the cause, such as a full disk, and run the "
            "same command again."
        ) from error
    finally:
        writer.close()


def stored_tensors(policy: Policy, scheme: Scheme) -> Iterator[tuple[str, str, Tensor]]:
    """Yield name in the file, format (`f32` for norms) and weight of each tensor, in the file's order; 1 is added to
    norms.

    ggml multiplies by a norm's gain; Gemma's models multiply by one plus their weight.
    """
    names = get_tensor_name_map(MODEL_ARCH.GEMMA3, policy.model.config.num_hidden_layers)
    for name, weight in policy.model.state_dict().items():
        if name == _HEAD:
            continue
        found = names.get_name(name, try_suffixes=(".weight",))
        if found is None:
            raise UserError(f"{name} has no name in a GGUF file of Gemma 3; set `formats: [transformers]`")
        format = scheme.of(name)
        yield found, format or "f32", weight.float() if format else weight.float() + 1


def stored(weight: Tensor, kind: str) -> Array:
    """Return the bytes of a tensor in its format."""
    return weight.cpu().numpy() if kind == "f32" else packed(weight, kind)  # type: ignore[arg-type]


def read_back(name: str, weight: Tensor, scheme: Scheme) -> Tensor:
    """Return the float32 values that a reader of the file gets for a weight of the model."""
    format = scheme.of("model.embed_tokens.weight" if name == _HEAD else name)
    with torch.no_grad():
        return quantised(weight.float(), format) if format else (weight.float() + 1) - 1


def _infos(policy: Policy, scheme: Scheme) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield name, format and shape in its own elements (bytes for blocks) of each tensor."""
    row_bytes = {"q4_0": 18 / 32, "q8_0": 34 / 32}
    for name, kind, weight in stored_tensors(policy, scheme):
        width = round(weight.shape[-1] * row_bytes.get(kind, 1))
        yield name, kind, (*weight.shape[:-1], width)


def _add_keys(writer: GGUFWriter, policy: Policy, scheme: Scheme, title: str) -> None:
    config: Gemma3TextConfig = policy.model.config
    writer.add_type("model")
    writer.add_name(title)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters[GLOBAL]["rope_theta"])
    if (factor := global_factor(config)) != 1.0:
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(factor)
    writer.add_sliding_window(config.sliding_window)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(_FILE_TYPES[scheme.format])
    writer.add_quantization_version(GGML_QUANT_VERSION)
