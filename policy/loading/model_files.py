"""Reading of a model's folder: if a library fails on it, the damaged file is named instead of the folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import safe_open

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.reading import read_json, reading

REQUIRED = {"model.safetensors.index.json": ("metadata", "weight_map")}


@contextmanager
def reading_model(source: Path | str, expected: str, remedy: str) -> Iterator[None]:
    """Turn any error of the block into one sentence, as `gemsmith.contracts.reading.reading` does.

    Args:
        source: the model's folder, or a hub id.
        expected: what the block reads, such as "the tokenizer of a Gemma 3".
        remedy: what the user can do, as an imperative.

    Raises:
        UserError: the block failed; the sentence names the first damaged file, or else the folder.
    """
    try:
        with reading(source, expected, remedy):
            yield
    except UserError as error:
        if isinstance(source, Path) and source.is_dir():
            _raise_for_damaged_file(source, expected, remedy, error)
        raise


def _raise_for_damaged_file(folder: Path, expected: str, remedy: str, cause: UserError) -> None:
    try:
        for path in sorted(folder.glob("*.json")):
            read_json(path, expected, remedy, keys=REQUIRED.get(path.name, ()))
        for path in sorted(folder.glob("*.safetensors")):
            with reading(path, expected, remedy), safe_open(path, framework="numpy"):
                pass
    except UserError as found:
        raise found from cause
