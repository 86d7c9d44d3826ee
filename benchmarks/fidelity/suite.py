"""Runs claims seed by seed, judges them, and says how far it is; what fails is a result too, and stops nothing else."""

import os
import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.fidelity import kept
from benchmarks.fidelity.claim import Claim, Setting, Verdict
from benchmarks.fidelity.code import ROOT
from benchmarks.fidelity.kept import KEPT, Trial
from gemsmith.recipes.run.machine import environment


@dataclass(frozen=True)
class Result:
    """Result of a claim: its trials and verdict, or the traceback of a crash."""

    claim: Claim
    setting: Setting
    size: Literal["full", "quick"]
    trials: tuple[Trial, ...]
    verdict: Verdict | None
    error: str = ""
    identities: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """Everything that the table, the figure and a reader of the JSON need, as plain values."""
        last = self.trials[-1] if self.trials else None
        return {
            "id": self.claim.id,
            "claim": self.claim.sentence,
            "source": self.claim.source,
            "size": self.size,
            "setting": dict(self.setting),
            "identities": list(self.identities),
            "seeds": [trial.seed for trial in self.trials],
            "verdict": asdict(self.verdict) if self.verdict else None,
            "error": self.error,
            "seconds": round(sum(trial.seconds for trial in self.trials), 1),
            "cpu_seconds": round(sum(trial.cpu_seconds for trial in self.trials), 1),
            "commit": last.commit if last else None,
            "date": last.date if last else None,
            "machine": last.machine if last else None,
            "trials": [asdict(trial) for trial in self.trials],
        }


@dataclass(frozen=True)
class Plan:
    """A claim with its setting, and where the trial of each seed is kept."""

    claim: Claim
    setting: Setting
    size: Literal["full", "quick"]
    places: tuple[Path, ...]

    @property
    def identities(self) -> tuple[str, ...]:
        """The hash of setting, seed and code of each trial, as the report keeps it."""
        return tuple(place.stem.rpartition("-")[2] for place in self.places)

    def kept(self) -> list[Trial]:
        """Return the trials that need not be run again."""
        return [trial for place in self.places if (trial := kept.load(place)) is not None]


def planned(claim: Claim, quick: bool, folder: Path = KEPT) -> Plan:
    """Plan a claim, before anything runs: no measurement is kept under code that was edited in the meantime."""
    setting = {**claim.setting, **(claim.quick if quick else {})}
    places = tuple(kept.place_of(claim, setting, seed, folder) for seed in claim.seeds)
    return Plan(claim, setting, "quick" if quick else "full", places)


def run_claim(plan: Plan, say: Callable[[str], None]) -> Result:
    """Measure a claim with each of its seeds, unless a measurement is kept, and judge it."""
    claim = plan.claim
    trials: list[Trial] = []
    try:
        for seed, place in zip(claim.seeds, plan.places, strict=True):
            trial = kept.load(place)
            if trial is None:
                say(f"{claim.id} seed {seed}: begun")
                trial = measured(claim, plan.setting, seed)
                kept.save(place, trial)
                say(f"{claim.id} seed {seed}: {trial.seconds:.1f} s, {trial.cpu_seconds:.1f} s of processors")
            else:
                say(f"{claim.id} seed {seed}: kept from {trial.date}, {trial.seconds:.1f} s then")
            trials.append(trial)
        verdict = claim.judge([trial.measured for trial in trials])
    except Exception as error:
        say(f"{claim.id}: crashed\n{traceback.format_exc()}")
        fault = f"{type(error).__name__}: {error}"
        return Result(claim, plan.setting, plan.size, tuple(trials), None, fault, plan.identities)
    say(f"{claim.id}: {verdict.holds}. {verdict.remark}".rstrip())
    return Result(claim, plan.setting, plan.size, tuple(trials), verdict, identities=plan.identities)


def measured(claim: Claim, setting: Setting, seed: int) -> Trial:
    """Measure a claim once, with all random numbers from the seed."""
    torch.manual_seed(seed)
    begun, before = time.perf_counter(), sum(os.times()[:4])
    measured = claim.run(setting, seed)
    seconds, cpu_seconds = round(time.perf_counter() - begun, 2), round(sum(os.times()[:4]) - before, 2)
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return Trial(seed, measured, seconds, commit(), date, machine(), cpu_seconds)


def machine() -> str:
    """Processor, cores and the version of torch."""
    found = environment()
    return f"{found['processor']}, {found['cores']} cores, torch {found['libraries']['torch']}"


def commit() -> str:
    """Return the current commit, with a plus if Python files differ from it; "unknown" without git."""
    try:
        return _git("rev-parse", "--short=10", "HEAD") + ("+" if _git("status", "--porcelain", "--", "*.py") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
