"""Measurements that are kept in `runs/fidelity`: an interrupted suite goes on, and what has not changed is not run."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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


def load(claim: Claim, setting: Setting, seed: int, folder: Path = KEPT) -> Trial | None:
    """The kept trial of a claim and seed at this setting and code, or None."""
    path = _path(claim, setting, seed, folder)
    return trial_of(json.loads(path.read_text())) if path.exists() else None


def save(claim: Claim, setting: Setting, trial: Trial, folder: Path = KEPT) -> None:
    """Keep a trial; the file appears whole."""
    path = _path(claim, setting, trial.seed, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(asdict(trial)))
    unfinished.replace(path)


def trial_of(content: Mapping[str, Any]) -> Trial:
    """A trial from its JSON."""
    return Trial(**{**content, "measured": Measured(**content["measured"])})


def shared_folder(
    name: str, make: Callable[[Path, Setting, int], None], setting: Setting, seed: int, root: Path = KEPT
) -> Path:
    """A folder that several claims read, such as trained reward models: made once for each setting, seed and code.

    Args:
        name: what the folder is called, before its hash.
        make: fills an empty folder, given the setting and the seed. The code of its module counts, as a claim's does.
        setting: only what `make` reads, so that claims that differ otherwise share the folder.
        seed: of the trial.
        root: where what is kept is kept.

    Returns:
        The folder. It appears whole: one that was interrupted is begun again.
    """
    folder = root / "shared" / f"{name}-{identity([make.__module__], setting, seed)[:16]}"
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished, setting, seed)
        unfinished.replace(folder)
    return folder


def _path(claim: Claim, setting: Setting, seed: int, folder: Path) -> Path:
    hashed = identity([claim.run.__module__, *claim.names], setting, seed)
    return folder / f"{claim.id}-{seed}-{hashed[:16]}.json"
