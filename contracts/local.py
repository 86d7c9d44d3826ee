"""Lookup of a recipe's relative paths: one rule for models, data, rewards and all other files."""

from pathlib import Path


def find_local(root: Path, name: str) -> Path | None:
    """Return the file or folder `name` beside the recipe (`root`), else in the working folder, else None."""
    path = Path(name).expanduser()
    for candidate in (root / path, Path.cwd() / path):
        if candidate.exists():
            return candidate
    return None
