"""Sizes of Gemma 3 models from the formulas of their architecture, without loading them. Imports no torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemsmith.contracts.local import find_local
from gemsmith.policy.config import PolicyConfig


@dataclass(frozen=True)
class Shape:
    """The dimensions of a Gemma 3 text model."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head: int
    layers: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        """Return the number of weights; the head is the embedding, so it counts once."""
        attention = 2 * self.hidden * self.head * (self.heads + self.kv_heads)
        norms = 4 * self.hidden + 2 * self.head
        layer = attention + 3 * self.hidden * self.intermediate + norms
        return self.vocabulary * self.hidden + self.layers * layer + self.hidden

    def adapters(self, rank: int) -> int:
        """Return the number of weights of low-rank adapters on every linear layer."""
        query, pair = self.hidden + self.head * self.heads, self.hidden + self.head * self.kv_heads
        return rank * self.layers * (2 * query + 2 * pair + 3 * (self.hidden + self.intermediate))


# Hugging Face's config.json of google/gemma-3-*; `tiny` is policy/loading/tiny.py's.
KNOWN = {
    "270m": Shape(640, 2048, 4, 1, 256, 18, 262_144),
    "1b": Shape(1152, 6912, 4, 1, 256, 26, 262_144),
    "4b": Shape(2560, 10_240, 8, 4, 256, 34, 262_208),
    "12b": Shape(3840, 15_360, 16, 8, 256, 48, 262_208),
    "27b": Shape(5376, 21_504, 32, 16, 128, 62, 262_208),
}
TINY = {"small": Shape(128, 448, 4, 2, 32, 6, 512), "large": Shape(224, 832, 4, 2, 32, 6, 512)}


# Of `Shape`, in order, and what transformers' Gemma3TextConfig takes where a text_config is silent, as the 4B's is.
_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_hidden_layers",
    "vocab_size",
)
_TEXT_DEFAULTS = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 262_208,
    "max_position_embeddings": 131_072,
}


def shape_of(policy: PolicyConfig, root: Path) -> Shape | None:
    """Return the shape of a policy with these weights; None if nothing on this disk tells it."""
    if policy.model is None:
        return None
    if policy.model == "tiny":
        return TINY[policy.size]
    local = find_local(root, policy.model)
    if local is not None and (local / "config.json").is_file():
        return _from_config(local / "config.json")
    words = Path(policy.model).name.lower().replace("_", "-").split("-")
    return next((shape for size, shape in KNOWN.items() if size in words), None)


def context_of(policy: PolicyConfig, root: Path) -> int | None:
    """Return the context in tokens of a policy with these weights, after rescaling; None if nothing on this disk
    tells it.
    """
    if policy.model is None:
        return None
    local = find_local(root, policy.model)
    context, before = 512, 1.0  # of `tiny`
    if policy.model != "tiny":
        if local is None or not (local / "config.json").is_file():
            return None
        try:
            config = _text_config(local / "config.json")
            rope = config.get("rope_parameters", {}).get("full_attention") or config.get("rope_scaling") or {}
            context, before = int(config["max_position_embeddings"]), float(rope.get("factor", 1))
        except Exception:  # loading the policy says what is wrong with the file
            return None
    return round(context * policy.rope.factor / before) if policy.rope else context


def has_own_head(policy: PolicyConfig, root: Path) -> bool:
    """Return True if a config.json on this disk says that the policy's head is not tied to its embedding."""
    local = find_local(root, policy.model) if policy.model not in (None, "tiny") else None
    if local is None or not (local / "config.json").is_file():
        return False
    try:
        return _text_config(local / "config.json").get("tie_word_embeddings") is False
    except Exception:  # loading the policy says what is wrong with the file
        return False


def _text_config(path: Path) -> dict[str, Any]:
    """Return the text part of a config.json; a multimodal one omits the defaults of its class."""
    config: dict[str, Any] = json.loads(path.read_text())
    return {**_TEXT_DEFAULTS, **config["text_config"]} if "text_config" in config else config


def _from_config(path: Path) -> Shape | None:
    try:
        config = _text_config(path)
        return Shape(*(int(config[name]) for name in _FIELDS))
    except Exception:  # loading the policy says what is wrong with the file
        return None
