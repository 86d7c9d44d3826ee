"""The text tower of a multimodal Gemma 3 (4B, 12B, 27B): names of its tensors, extraction and replacement.

Two layouts exist: `language_model.model.*` (the hub's files, and files that transformers writes) and
`model.language_model.*` (the names inside the model, and files of some other writers).
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import Gemma3ForCausalLM

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.reading import as_object, read_json, reading
from gemsmith.contracts.stage import write_atomically
from gemsmith.weights.checkpoint import Checkpoint, write_checkpoint
from gemsmith.weights.formats import Array

# In the order in which transformers tries them: the first that matches renames.
KEY_MAPPING = {
    r"^model\.language_model\.": "model.",
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head": "lm_head",
}
_CONTEXT_FIELDS = ("rope_parameters", "max_position_embeddings")


def text_name(name: str) -> str | None:
    """Return the text model's name of a tensor of the multimodal one; None for a tensor of the vision side."""
    for pattern, replacement in KEY_MAPPING.items():
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name if name.startswith("lm_head.") else None


def multimodal_names(names: Iterable[str]) -> dict[str, str]:
    """Return the multimodal checkpoint's own name of each tensor of the text model, without the vision side."""
    return {text: name for name in names if (text := text_name(name)) is not None}


def forget_multimodal(model: Gemma3ForCausalLM) -> None:
    """Make the model save under a text model's names; transformers would use the names of the file it was read from."""
    if hasattr(model, "_weight_conversions"):
        del model._weight_conversions
    model.config._name_or_path = ""


def put_back(text: Path, multimodal: Path, out: Path) -> None:
    """Write the multimodal checkpoint with its text tower replaced by a trained one; streamed block by block.

    Names and dtypes are those of the multimodal checkpoint, and so are the vision side and all other files. The
    context's length and rescaling in `config.json` become the trained model's.

    Args:
        text: folder of the trained text model, as `save_policy` writes it.
        multimodal: folder of the checkpoint that the text model came from.
        out: folder to write; it appears complete or not at all.

    Raises:
        UserError: the two do not belong together.
    """
    with Checkpoint(text) as trained, Checkpoint(multimodal) as whole:
        source = {name: text_name for text_name, name in multimodal_names(whole.tensors).items()}
        if "lm_head.weight" not in trained.tensors:  # tied: the embedding is the head, also where a file has both
            source = {n: "model.embed_tokens.weight" if t == "lm_head.weight" else t for n, t in source.items()}
        _check_pair(trained, whole, source, text, multimodal)

        def block(name: str, rows: slice) -> Array:
            return trained.read(source[name], rows) if name in source else whole.read(name, rows)

        write_checkpoint(out, whole, block)
    config, trained_config = _config(out), _config(text)
    with reading(out / "config.json", "the configuration of a multimodal Gemma 3", "copy it beside the weights"):
        text_config = as_object(config["text_config"])
        text_config.update({name: trained_config[name] for name in _CONTEXT_FIELDS if name in trained_config})
        text_config.pop("rope_scaling", None)  # the older spelling of rope_parameters
    write_atomically(out / "config.json", json.dumps(config, indent=2) + "\n")


def _check_pair(trained: Checkpoint, whole: Checkpoint, source: dict[str, str], text: Path, multimodal: Path) -> None:
    if not source:
        raise UserError(
            f"{multimodal} holds no text tower of a multimodal Gemma 3; expected tensors `language_model.*`."
        )
    lost = sorted(set(trained.tensors) - set(source.values()))
    if lost:
        raise UserError(
            f"{multimodal} has no place for {lost[0]} of {text}; expected the checkpoint that it came from."
        )
    for name, text_tensor in source.items():
        found = trained.tensors.get(text_tensor)
        if found is None or found.shape != whole.tensors[name].shape:
            what = "nothing" if found is None else f"shape {list(found.shape)}"
            raise UserError(
                f"{text} has {what} for {name} of {multimodal}, which is {list(whole.tensors[name].shape)}: expected a "
                "text model that came from this checkpoint."
            )


def _config(folder: Path) -> dict[str, Any]:
    return read_json(folder / "config.json", "the configuration of a Gemma 3", "copy it beside the weights")
