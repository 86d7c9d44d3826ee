"""A policy's tokenizer as keys of a GGUF file (ggml's docs/gguf.md), for llama.cpp and transformers."""

import json
import re
from typing import Any

from gguf import GGUFWriter, TokenType

from gemsmith.policy.policy import Policy

HUGGINGFACE = "tokenizer.huggingface.json"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_NEVER = -1000.0  # the score of what is never found by merging


def add_tokenizer(writer: GGUFWriter, policy: Policy) -> None:
    """Write the entries of the policy's vocabulary, and the tokenizer's algorithm.

    Gemma's tokenizer (byte-pair merges) is `llama`: its entries are in the order of their merges, and their scores say
    so. Tiny's (unigram) is `t5`, with its own scores; because readers make a T5 tokenizer of it, the file also holds
    the tokenizer itself, under the format's key for it.
    """
    content = json.loads(policy.tokenizer.backend_tokenizer.to_str())
    size = policy.model.config.vocab_size
    unigram = content["model"]["type"] == "Unigram"
    tokens, scores, types = _entries(content, size)
    writer.add_tokenizer_model("t5" if unigram else "llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    if unigram:
        writer.add_string(HUGGINGFACE, json.dumps(content, ensure_ascii=False))
    ids = {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>", "eot": "<end_of_turn>"}
    for name, token in ids.items():
        getattr(writer, f"add_{name}_token_id")(policy.tokenizer.convert_tokens_to_ids(token))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    if isinstance(policy.tokenizer.chat_template, str):
        writer.add_chat_template(policy.tokenizer.chat_template)


def _entries(content: dict[str, Any], size: int) -> tuple[list[str], list[float], list[int]]:
    """Return text, score and type of each of `size` entries, without the tokenizer's surplus entries; others are
    unused.

    (The 270M's tokenizer has one entry more than the model has rows: the image token.)
    """
    model = content["model"]
    pieces = dict(model["vocab"]) if model["type"] == "Unigram" else None
    places = {text: place for place, (text, _) in enumerate(model["vocab"])} if pieces is not None else model["vocab"]
    added = {entry["id"]: entry for entry in content["added_tokens"]}
    names = {place: text for text, place in places.items()} | {place: each["content"] for place, each in added.items()}
    first = min(place for text, place in places.items() if place not in added and not _BYTE.fullmatch(text))
    tokens, scores, types = [], [], []
    for place in range(size):
        text = names.get(place, f"[PAD{place}]")
        kind = _type(place, text, names, added)
        if kind == TokenType.USER_DEFINED:
            text = text.replace("▁", " ")  # these are looked for in the text as it is given
        tokens.append(text)
        types.append(int(kind))
        if pieces is not None:
            scores.append(float(pieces.get(text, _NEVER)))
        else:
            scores.append({TokenType.NORMAL: float(first - place), TokenType.BYTE: 0.0}.get(kind, _NEVER))
    return tokens, scores, types


def _type(place: int, text: str, names: dict[int, str], added: dict[int, Any]) -> TokenType:
    if place not in names:
        return TokenType.UNUSED
    if place in added:
        return TokenType.CONTROL if added[place]["special"] else TokenType.USER_DEFINED
    return TokenType.BYTE if _BYTE.fullmatch(text) else TokenType.NORMAL
