"""Local files that a recipe names: which names must be files, and a fingerprint of what is in them."""

import hashlib
from pathlib import Path

CHUNK = 1 << 20
CONFIGS = ("config.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json")


def names_a_file(model: str) -> bool:
    """Whether a policy's `model` must be something on this disk: it is spelt like a path, not like a hub id."""
    return model.startswith((".", "/", "~")) or model.endswith(".gguf") or model.count("/") > 1


def fingerprint(path: Path) -> str:
    """What identifies a file's or a model folder's content.

    A text file is hashed whole. Weights are large: a model folder and a GGUF file count by the names, sizes and
    modification times of their files, and a folder also by the content of its configuration and tokenizer.
    """
    if path.is_file() and path.suffix != ".gguf":
        return _digest(path)
    parts = []
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            stat = file.stat()
            small = file.name in CONFIGS
            relative = file.relative_to(path) if path.is_dir() else file.name
            parts.append(f"{relative} {stat.st_size} {_digest(file) if small else stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
