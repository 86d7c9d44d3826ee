"""Measurements that are kept in `runs/fidelity`: an interrupted suite goes on, and what has not changed is not run."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.fidelity.claim import Claim, Measured, Setting
from benchmarks.fidelity.code import ROOT, identity

KEPT = ROOT / "runs" / "fidelity"


@dataclass(frozen=True)
class Trial:
    """One measurement, with what it took and where it was made; `cpu_seconds` are this process's and its children's."""

    seed: int
    measured: Measured
    seconds: float
    commit: str
    date: str
    machine: str
    cpu_seconds: float = 0.0


def place_of(claim: Claim, setting: Setting, seed: int, folder: Path = KEPT) -> Path:
    """Return the file of a claim and seed for this setting and the current code."""
    hashed = identity([claim.run.__module__, *claim.names], setting, seed)
    return folder / f"{claim.id}-{seed}-{hashed[:16]}.json"


def load(path: Path) -> Trial | None:
    """Return the trial that is kept in a file, or None."""
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    return Trial(**{**content, "measured": Measured(**content["measured"])})


def save(path: Path, trial: Trial) -> None:
    """Keep a trial; the file appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(asdict(trial)))
    unfinished.replace(path)


def shared_folder(
    name: str,
    make: Callable[[Path, Setting, int], None],
    setting: Setting,
    seed: int,
    root: Path = KEPT,
    names: Sequence[str] = (),
) -> Path:
    """Return a folder that several claims read, such as trained reward models; made once per setting, seed and code.

    Args:
        name: name of the folder, before its hash.
        make: function that fills an empty folder, given the setting and the seed. The code of its module counts, like a
            claim's.
        setting: only what `make` reads, so that claims that differ otherwise share the folder.
        seed: seed of the trial.
        root: folder of everything that is kept.
        names: modules of ours that `make` reaches by name and not by import, whose code counts too.

    Returns:
        The folder. It appears complete: an interrupted one is started again. If another process is making it, this
        process waits.
    """
    folder = root / "shared" / f"{name}-{identity([make.__module__, *names], setting, seed)[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = folder.with_name(f"{folder.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished, setting, seed)
            unfinished.replace(folder)
    return folder
