"""Loading of a policy from a GGUF file: weights dequantised, tokenizer rebuilt from the file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import Gemma3ForCausalLM, GemmaTokenizer, PreTrainedTokenizerFast
from transformers.integrations.gguf import read_gguf_metadata

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.reading import reading
from gemsmith.policy.loading.rope import check_window, set_global_factor
from gemsmith.policy.policy import Policy

_SIZES = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count")


def load_gguf(path: Path, dtype: torch.dtype, attention: str) -> Policy:
    """Return the Gemma 3 of a GGUF file as plain weights that can be trained and saved.

    Raises:
        UserError: the file is damaged, or not a Gemma 3.
    """
    with reading(path, "a GGUF file", "download it again"):
        metadata, _ = read_gguf_metadata(str(path))
    architecture = metadata.get("general.architecture")
    if architecture != "gemma3":
        raise UserError(f"{path} holds a model of architecture {architecture!r}; expected a GGUF file of Gemma 3.")
    if missing := [name for name in _SIZES if not isinstance(metadata.get(f"gemma3.{name}"), int)]:
        # transformers would build a model of billions of random weights from its own defaults
        raise UserError(f"{path} lacks gemma3.{missing[0]}: expected a GGUF file of Gemma 3; download it again.")
    with reading(path, "the weights and the tokenizer of a Gemma 3 in a GGUF file", "download it again"):
        model = Gemma3ForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=dtype, attn_implementation=attention
        )
        tokenizer = _tokenizer(path, metadata)
        _forget_quantisation(model)
        check_window(model.config, path)
        if metadata.get("gemma3.rope.scaling.type") == "linear":  # transformers reads the length, and not this
            set_global_factor(model, float(metadata["gemma3.rope.scaling.factor"]))
    return Policy(model, tokenizer)


def _tokenizer(path: Path, metadata: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """Return the tokenizer that the file stores whole (as for tiny), or else rebuild Gemma's from its entries."""
    whole = metadata.get("tokenizer.huggingface.json")
    if whole is None:
        tokenizer = GemmaTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        tokenizer.add_bos_token = True  # as Gemma's own tokenizer does; the file's flag is not read
        return tokenizer
    special = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(whole),
        clean_up_tokenization_spaces=False,
        chat_template=metadata.get("tokenizer.chat_template"),
        **special,
    )


def _forget_quantisation(model: Gemma3ForCausalLM) -> None:
    """Remove the mark of quantisation: the weights are plain numbers now, and transformers refuses to save a marked
    model.
    """
    del model.config.quantization_config
    for mark in ("hf_quantizer", "quantization_method", "is_quantized"):
        if hasattr(model, mark):
            delattr(model, mark)
    model.config._name_or_path = ""
