"""Match the tensors of checkpoints that are to be merged: names, tied heads, padding rows, configurations."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.reading import as_object, reading
from gemsmith.weights.checkpoint import Checkpoint

# Prefixes of the text tower in multimodal checkpoints, old and new, and what they are in a text checkpoint.
TEXT_PREFIXES = (
    ("language_model.model.", "model."),
    ("model.language_model.", "model."),
    ("language_model.lm_head.", "lm_head."),
)
VISION = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
MEANING = (
    *(
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
    ),
    *("layer_types", "sliding_window", "sliding_window_pattern", "query_pre_attn_scalar", "attention_bias"),
    *("rope_theta", "rope_local_base_freq", "rope_scaling", "rope_parameters", "rms_norm_eps"),
    *("hidden_activation", "hidden_act", "final_logit_softcapping", "attn_logit_softcapping"),
    *("use_bidirectional_attention", "quantization_config"),
)
"""Fields of config.json that say what weights mean. Others may differ: how a model is loaded, trained or prompted."""


def canonical(name: str) -> str:
    """Return a tensor's name as it is in a text checkpoint."""
    for prefix, plain in TEXT_PREFIXES:
        if name.startswith(prefix):
            return plain + name.removeprefix(prefix)
    return name


@dataclass(frozen=True)
class Match:
    """A checkpoint, seen by the names of the first one.

    Attributes:
        checkpoint: the checkpoint.
        names: its own name of each tensor of the first checkpoint; vision tensors that it lacks are left out.
        rows: number of rows that the two have in common, of embeddings with different numbers of rows.
    """

    checkpoint: Checkpoint
    names: Mapping[str, str]
    rows: Mapping[str, int] = field(default_factory=dict)


def match(first: Checkpoint, other: Checkpoint) -> Match:
    """Match the tensors of `other` to those of `first`.

    A text checkpoint matches the text tower of a multimodal one. A stored copy of a tied head counts as absent
    (`drop_tied_head`). Embeddings may differ in their number of rows if both folders have the same tokenizer: further
    rows are padding.

    Raises:
        UserError: a tensor is missing, shapes differ, or a field of config.json that gives weights their meaning does.
    """
    _check_configurations(first.folder, other.folder)
    by_name = {canonical(name): name for name in other.tensors}
    known = {canonical(name) for name in first.tensors}
    names, rows = {}, {}
    for name, tensor in first.tensors.items():
        own = by_name.get(canonical(name))
        if own is None:
            if name.startswith(VISION) and not any(theirs.startswith(VISION) for theirs in other.tensors):
                continue
            raise _missing(name, first, other)
        names[name] = own
        here, there = tensor.shape, other.tensors[own].shape
        if here == there:
            continue
        padded = canonical(name) in (EMBEDDING, HEAD) and here[1:] == there[1:]
        if not (padded and _same_tokenizer(first.folder, other.folder)):
            raise UserError(
                f"tensor {name} is {list(here)} in {first.folder} and {list(there)} in {other.folder}: merge "
                "checkpoints of one architecture."
            )
        rows[name] = min(here[0], there[0])
    text_only = not any(name.startswith(VISION) for name in first.tensors)
    for name in other.tensors:
        if canonical(name) not in known and not (text_only and name.startswith(VISION)):
            raise _missing(name, other, first)
    return Match(other, names, rows)


def drop_tied_head(checkpoint: Checkpoint) -> None:
    """Forget a head that is a stored copy of the embedding, unless the configuration says that it is its own.

    Raises:
        UserError: the configuration ties the two, but the stored head is another matrix.
    """
    by_name = {canonical(name): name for name in checkpoint.tensors}
    head, embedding = by_name.get(HEAD), by_name.get(EMBEDDING)
    tied = _text_configuration(checkpoint.folder).get("tie_word_embeddings")
    if head is None or embedding is None or tied is False:
        return
    if checkpoint.tensors[head] != checkpoint.tensors[embedding] or not all(
        np.array_equal(checkpoint.read(head, rows), checkpoint.read(embedding, rows))
        for rows in checkpoint.blocks(embedding)
    ):
        if tied is None:
            return
        raise UserError(
            f"{checkpoint.folder}: config.json ties the head to the embedding, but {head} differs from {embedding}; "
            "set tie_word_embeddings to false if the head is to be its own"
        )
    del checkpoint.tensors[head]


def _missing(name: str, here: Checkpoint, there: Checkpoint) -> UserError:
    return UserError(
        f"tensor {name} is in {here.folder} but not in {there.folder}; merge checkpoints of one architecture."
    )


def _configuration(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        return {}
    with reading(path, "a model's configuration", "write the checkpoint again"):
        return as_object(json.loads(path.read_text(encoding="utf-8")))


def _text_configuration(folder: Path) -> dict[str, Any]:
    """Return the fields of the text model, which a multimodal configuration has below `text_config`."""
    whole = _configuration(folder)
    text = whole.get("text_config")
    return {**whole, **text} if isinstance(text, dict) else whole


def _check_configurations(first: Path, other: Path) -> None:
    """Reject fields that both configurations have, that differ, and that give the weights their meaning."""
    here, there = _text_configuration(first), _text_configuration(other)
    for name in MEANING:
        if name in here and name in there and here[name] != there[name]:
            raise UserError(
                f"config.json: {name} is {json.dumps(here[name])} in {first} and {json.dumps(there[name])} in {other}: "
                "merge checkpoints of one architecture."
            )


def _same_tokenizer(first: Path, other: Path) -> bool:
    files = [folder / "tokenizer.json" for folder in (first, other)]
    return all(file.exists() for file in files) and files[0].read_bytes() == files[1].read_bytes()
