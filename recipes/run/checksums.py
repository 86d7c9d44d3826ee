"""Checksums of the files that a finished stage has written: recorded at its end, checked before they are used.

At every start the files of all finished stages are compared by existence, size and remembered digest, which costs no
reading while nothing changed. Before a later stage or a command reads a stage's output, its files are read and compared
whole.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gemsmith.contracts.digests import digests
from gemsmith.contracts.errors import UserError
from gemsmith.recipes.run.record import recorded_files

OUTPUT = "output"
UNRECORDED = (".part", ".lock", ".old")  # ends of the names of files that are being written


def record_files(folder: Path, results: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 digest of every file that a stage has written, by its path relative to `folder`.

    Args:
        folder: the stage's folder.
        results: patterns of the files and folders that later stages read (`StageConfig.results`).
    """
    files = sorted({file for pattern in results for path in folder.glob(pattern) for file in _files(path)})
    found = digests(files)
    return {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": found[file]}
        for file in files
        if file.exists()
    }


def changed_files(folder: Path, recorded: Mapping[str, Mapping[str, Any]], *, whole: bool) -> list[str]:
    """Return one phrase for each recorded file that is not as the stage wrote it, such as "output/x is missing".

    Files outside `output` may be deleted to free the disk: a stage that needs one names it itself.

    Args:
        folder: the stage's folder.
        recorded: the files in the stage's record; empty for a stage of an older version, which has nothing to compare.
        whole: read every file; otherwise large files that have the recorded size and an unchanged state are not read.
    """
    faults, same_size = {}, {}
    for name, entry in recorded.items():
        path = folder / name
        if not path.is_file():
            if Path(name).parts[0] == OUTPUT:
                faults[name] = f"{path} is missing"
        elif path.stat().st_size != entry["bytes"]:
            faults[name] = f"{path} has {path.stat().st_size} bytes instead of {entry['bytes']}"
        else:
            same_size[name] = path
    found = digests(same_size.values(), remembered=not whole)
    for name, path in same_size.items():
        if found[path] != recorded[name]["sha256"]:
            faults[name] = f"{path} has the recorded size, but other content"
    return [faults[name] for name in recorded if name in faults]


def raise_if_changed(faults: Mapping[str, Sequence[str]], remedy: str = "") -> None:
    """Raise if files of finished stages have changed.

    Args:
        faults: phrases of `changed_files` by the id of the stage.
        remedy: the end of the sentence; the default names the options of `gemsmith run`.

    Raises:
        UserError: names the first file, the stage that wrote it, and what to do.
    """
    phrases = [(id, phrase) for id, found in faults.items() for phrase in found]
    if not phrases:
        return
    id, first = phrases[0]
    more = f" (and {len(phrases) - 1} more files)" if len(phrases) > 1 else ""
    only = " ".join(f"--only {name}" for name in faults if faults[name])
    remedy = remedy or (
        f"put the file back from a copy, or run `gemsmith run` with {only} --fresh, which deletes what the stage wrote "
        "and runs it again"
    )
    raise UserError(f"stage {id} is finished, but {first}{more}: it changed after the stage wrote it; {remedy}")


def check_whole(folders: Iterable[Path]) -> None:
    """Read the recorded files of finished stages whole, before a command uses their outputs.

    Args:
        folders: outputs of stages; other folders, and stages of older versions, have nothing to compare.

    Raises:
        UserError: a file is missing or changed, or a stage's record is damaged.
    """
    stages = [folder.resolve().parent for folder in folders if folder.resolve().name == OUTPUT]
    raise_if_changed(
        {
            stage.name[:-9]: changed_files(stage, recorded_files(stage), whole=True)
            for stage in stages
            if (stage / "stage.json").is_file()
        }
    )


def _files(path: Path) -> Iterator[Path]:
    paths: Iterable[Path] = path.rglob("*") if path.is_dir() else [path]
    return (file for file in paths if file.is_file() and not file.name.endswith(UNRECORDED))
