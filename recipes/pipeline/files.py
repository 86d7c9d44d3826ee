"""Local files that a recipe names: which names must be files, and the fingerprint that older versions gave them."""

import hashlib
from pathlib import Path

from gemsmith.contracts.digests import digest

CONFIGS = ("config.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json")


def names_a_file(model: str) -> bool:
    """Return whether a policy's `model` must be a local path, because it looks like a path and not like a hub id."""
    return model.startswith((".", "/", "~")) or model.endswith(".gguf") or model.count("/") > 1


def former_fingerprint(path: Path) -> str:
    """Return the fingerprint of older versions, which identified weights by size and time of modification.

    Stages that were finished under it stay finished (`gemsmith.recipes.pipeline.identity`).
    """
    if path.is_file() and path.suffix != ".gguf":
        return digest(path, remembered=True)
    parts = []
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            stat = file.stat()
            small = file.name in CONFIGS
            relative = file.relative_to(path) if path.is_dir() else file.name
            parts.append(f"{relative} {stat.st_size} {digest(file) if small else stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
