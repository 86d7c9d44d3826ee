"""Where a recipe's relative paths are looked for: one rule for models, data, rewards and whatever else names a file."""

from pathlib import Path


def find_local(root: Path, name: str) -> Path | None:
    """The file or folder called `name` beside the recipe (`root`), else in the working folder, else None."""
    path = Path(name).expanduser()
    for candidate in (root / path, Path.cwd() / path):
        if candidate.exists():
            return candidate
    return None
