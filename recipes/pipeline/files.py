"""Local files that a recipe names: which names must be files, and a fingerprint of their content."""

import hashlib
from pathlib import Path

CHUNK = 1 << 20
CONFIGS = ("config.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json")


def names_a_file(model: str) -> bool:
    """Return whether a policy's `model` must be a local path, because it looks like a path and not like a hub id."""
    return model.startswith((".", "/", "~")) or model.endswith(".gguf") or model.count("/") > 1


def fingerprint(path: Path) -> str:
    """Return a SHA-256 hash (hex) that identifies the content of a file or a model folder.

    A text file is hashed whole. Weights are too large for that: for a model folder and a GGUF file, the names, sizes
    and modification times of the files are hashed, and the content of a folder's configuration and tokenizer.
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
