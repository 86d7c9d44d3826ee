"""Run a shipped recipe and write its result to docs/results, where the documentation's recipe pages read it.

    python tools/record_recipe.py quickstart
    python tools/record_recipe.py gemma3-270m-cpu --set 'data.gsm8k={...}' --note "GSM8K's test questions."

The run's time, its stages and scores come from its folder; peak memory is the largest sum of the resident memory of the
run's processes, sampled twice per second (pages that processes share count in each of them).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

import gemsmith
from gemsmith.recipes.api.scores import PolicyScores

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
REWARD_MODELS = {
    "average": "WARM: average of the weights",
    "ensemble": "mean of the members' scores",
    "probe": "probed head alone",
}
EVERY = 0.5  # seconds between two samples of the memory


def processor() -> str:
    """Return the processor's name and the widest vector extension that it has."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    flags = set(next((line.split(":", 1)[1].split() for line in info.splitlines() if line.startswith("flags")), []))
    widest = next(
        (name for flag, name in (("amx_bf16", "AMX"), ("avx512f", "AVX512"), ("avx2", "AVX2")) if flag in flags), ""
    )
    return f"{names[0] if names else platform.machine()}{f' ({widest})' if widest else ''}"


def resident(process: psutil.Process) -> int:
    """Return the resident memory of a process and its descendants, in bytes."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += member.memory_info().rss
    return total


def run(command: list[str], environment: dict[str, str]) -> tuple[float, int]:
    """Run a command and return its seconds and its peak memory in bytes; a failure ends this program."""
    begun, peak = time.monotonic(), 0
    child = subprocess.Popen(command, env=environment)
    watched = psutil.Process(child.pid)
    while child.poll() is None:
        peak = max(peak, resident(watched))
        time.sleep(EVERY)
    if child.returncode:
        sys.exit(f"{shlex.join(command)} ended with exit code {child.returncode}")
    return time.monotonic() - begun, peak


def scores_of(run: gemsmith.Run) -> dict[str, Any]:
    """Return the scores of each evaluation of a run, by its stage."""
    found = {}
    for stage in run.stages:
        if stage.kind == "evaluate":
            scores = run.scores(stage.id)
            names = ("stage", "pass_rate", "greedy_pass_rate", "reward", "kl")
            policies = [
                {**{name: asdict(policy)[name] for name in names}, "tasks": by_task(policy)} for policy in scores
            ]
            found[stage.id] = {"prompts": scores.prompts, "samples": scores.samples, "policies": policies}
    return found


def by_task(policy: PolicyScores) -> dict[str, Any]:
    """Return the sampled pass rate of a policy on each task; empty where the data has one task or none."""
    rates = {name: task.pass_rate for name, task in policy.by_task.items() if task.pass_rate is not None}
    return {name: asdict(rate) for name, rate in rates.items()} if len(rates) > 1 else {}


def reward_models_of(run: gemsmith.Run) -> dict[str, Any]:
    """Return the accuracy of each reward model of the `warm` stages of a run, by stage."""
    found = {}
    for stage in run.stages:
        file = stage.output / "warm.json"
        if stage.kind == "warm" and file.is_file():
            content = json.loads(file.read_text())
            models = {f"member {number}": member for number, member in enumerate(content["members"], 1)}
            models |= {name: content[key] for key, name in REWARD_MODELS.items() if content.get(key)}
            names = ("accuracy", "log_loss", "calibration_error", "length_correlation")
            found[stage.id] = [
                {"model": name, **{key: model.get(key) for key in names}} for name, model in models.items()
            ]
    return found


def main() -> None:
    """Run the recipe that the command line names, and write its result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="name of a shipped recipe")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/results/RECIPE)")
    parser.add_argument(
        "--finished", action="store_true", help="record the finished run in --out; its memory is unknown"
    )
    parser.add_argument("--set", action="append", default=[], help="as for gemsmith run")
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of the run")
    parser.add_argument("--note", action="append", default=[], help="a sentence for the page")
    options = parser.parse_args()
    out = options.out or ROOT / "runs" / "results" / options.recipe
    shown = ["gemsmith", "run", options.recipe]
    settings = [word for value in options.set for word in ("--set", value)]
    environment = dict(os.environ)
    if options.threads:
        environment["OMP_NUM_THREADS"] = str(options.threads)
    command = [sys.executable, "-P", "-m", "gemsmith", "run", options.recipe, "--out", str(out), "--fresh", *settings]
    measured = None if options.finished else run(command, environment)
    done = gemsmith.open_run(out)
    seconds, peak = measured or (sum(stage.seconds for stage in done.stages), None)
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True
    )
    threads = f"OMP_NUM_THREADS={options.threads} " if options.threads else ""
    content = {
        "recipe": options.recipe,
        "command": threads + " ".join(shown),
        "date": datetime.date.today().isoformat(),
        "gemsmith": metadata.version("gemsmith"),
        "commit": commit.stdout.strip(),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "torch": torch.__version__},
        "seconds": round(seconds, 1),
        "peak_memory_bytes": peak,
        "stages": [{"id": s.id, "kind": s.kind, "seconds": round(s.seconds, 1)} for s in done.stages],
        "scores": scores_of(done),
        "reward_models": reward_models_of(done),
        "notes": options.note,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{options.recipe}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {RESULTS / options.recipe}.json")


if __name__ == "__main__":
    main()
