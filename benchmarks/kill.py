"""Interrupt a run of every stage kind at random moments, and compare it with an uninterrupted one bit for bit.

    python -m benchmarks.kill [--quick] [--moments 50] [--runs 5] [--seed 0] [--json PATH] [--folder PATH]

Moments, signals (SIGKILL, SIGTERM, SIGINT, SIGHUP) and targets (the run, its process group, one of its descendants) are
drawn from the seed. After each interruption the same command is started again. At the end the weights, stores, scores
and samples must be the uninterrupted run's bytes, the metrics equal but for measured times, and no process, temporary
file or shared memory may be left.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.results import Row, write_rows

RECIPE = """\
name: kill
policy: {model: tiny}
data:
  sums: {source: reasoning_gym, task: chain_sum, size: 80, synthesise: {right: 0.7}, holdout: 0.2,
         options: {min_terms: 2, max_terms: 2, min_digits: 1, max_digits: 1}, prompt: "{metadata[expression]} ="}
  answers: {source: generated, from: answers}
rewards:
  correct: {kind: math}
  short: {kind: python, target: "short.py:short", weight: 0.1, normalise: running}
  preferred: {kind: reward_model, from: warm, weight: 0.05}
stages:
  - {id: sft, kind: sft, data: sums, STEPS}
  - {id: teacher, kind: sft, policy: {model: tiny, size: large}, data: sums, STEPS}
  - {id: cache, kind: teacher_cache, teacher: {from: teacher}, data: sums, sampled_logits: 16}
  - {id: taught, kind: distill, policy: {from: sft}, teacher: {from: cache}, data: sums, sampled_logits: 16, STEPS}
  - {id: gkd, kind: distill, policy: {from: sft}, teacher: {from: teacher}, data: sums, on_policy: 0.5,
     sampled_logits: 16, STEPS, sampling: {max_tokens: 6}}
  - {id: answers, kind: generate, policy: {from: taught}, data: sums, keep: 1, samples: 2, rewards: [short],
     sampling: {max_tokens: 6, batch: 16}}
  - {id: warm, kind: warm, policy: {from: sft}, data: sums, members: 2, parallel: 2, dropouts: [0.0], probe_steps: 2,
     STEPS}
  - {id: bond, kind: bond, policy: {from: taught}, data: sums, rewards: [correct, short, preferred], anchor_rate: 0.2,
     STEPS, sampling: {max_tokens: 6}}
  - {id: reinforce, kind: reinforce, policy: {from: gkd}, data: sums, rewards: [correct, short], samples: 2, updates: 2,
     kl_in: loss, STEPS, sampling: {max_tokens: 6, temperature: 0.9}}
  - {id: warp, kind: warp, policy: {from: bond}, runs: 2, iterations: 1, parallel: 2, front: [0.5], front_prompts: 4,
     inner: {kind: bond, data: sums, rewards: [correct, short], STEPS, sampling: {max_tokens: 6}}}
  - {id: grid, kind: qat, policy: {from: warp}, data: sums, format: q4_0, held_out: 4, STEPS}
  - {id: scores, kind: evaluate, policies: [sft, bond, warp], data: sums, rewards: [correct, short], samples: 2,
     sampling: {max_tokens: 6, batch: 8}}
  - {id: release, kind: export, policy: {from: grid}, formats: [transformers, gguf], gguf: q4_0}
"""
STEPS = "steps: 6, batch: 4, learning_rate: 1.0e-3, save_every: 2"
SHORT = "def short(completions, **columns):\n    return [-float(len(c)) for c in completions]\n"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TARGETS = ("run", "group", "descendant")
EARLIEST, LATEST = 2.0, 14.0  # seconds after a start at which it is interrupted
LIMIT = 900.0  # seconds of one start
TIMES = ("second", "_time", "duration")
"""Parts of the names of metrics that measure time, which no two runs have in common."""
KEPT_BY_TORCH = "torchinductor_"  # torch's own cache of compiled code, which it keeps for the next program
TOKEN = "GEMSMITH_KILL_TOKEN"


@dataclass
class Moment:
    """One interruption.

    Attributes:
        run: number of the interrupted run.
        sent: the signal.
        target: which process it went to.
        after: seconds from the start to the signal.
        stage: the stage that was running, "" if none had begun.
        code: exit code of the command; None if it had ended before.
    """

    run: int
    sent: signal.Signals
    target: str
    after: float
    stage: str
    code: int | None


@dataclass
class Outcome:
    """Result of one interrupted run: its moments, the files that differ from the uninterrupted run, and leftovers."""

    moments: list[Moment] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def prepare(folder: Path) -> None:
    """Write the recipe and its reward."""
    folder.mkdir(parents=True)
    (folder / "kill.yaml").write_text(RECIPE.replace("STEPS", STEPS))
    (folder / "short.py").write_text(SHORT)


def start(folder: Path, token: str) -> subprocess.Popen[bytes]:
    """Start the run in a process group of its own, with a temporary folder of its own."""
    (folder / "tmp").mkdir(exist_ok=True)
    environment = {**os.environ, TOKEN: token, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    log = (folder / "log.txt").open("ab")
    command = [sys.executable, "-P", "-m", "gemsmith", "run", "kill.yaml", "--out", "run"]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True,
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in SIGNALS if number != signal.SIGKILL],
    )  # fmt: skip


def interrupt(folder: Path, token: str, draw: random.Random, number: int) -> Moment:
    """Start the run, send one signal after a while, wait until the command has ended, and describe the moment."""
    after, sent, target = draw.uniform(EARLIEST, LATEST), draw.choice(SIGNALS), draw.choice(TARGETS)
    started = start(folder, token)
    try:
        return Moment(number, sent, target, after, running_stage(folder), started.wait(after))
    except subprocess.TimeoutExpired:
        pass
    stage = running_stage(folder)
    if target == "group":
        os.killpg(started.pid, sent)
    else:
        children = psutil.Process(started.pid).children(recursive=True) if target == "descendant" else []
        chosen = draw.choice(children).pid if children else started.pid
        try:
            os.kill(chosen, sent)
        except ProcessLookupError:
            target = "run"
            os.kill(started.pid, sent)
    try:
        code: int | None = started.wait(60.0 if target != "descendant" else 5.0)
    except subprocess.TimeoutExpired:  # a descendant that may end, or that ignores the signal: the run goes on
        code = None
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    return Moment(number, sent, target, after, stage, code)


def running_stage(folder: Path) -> str:
    """Return the stage that run.json calls running; empty if there is none."""
    try:
        stages = json.loads((folder / "run/run.json").read_text())["stages"]
    except (OSError, ValueError, KeyError):
        return ""
    return next((stage["id"] for stage in stages if stage["status"] == "running"), "")


def finish(folder: Path, token: str) -> None:
    """Run to the end.

    Raises:
        RuntimeError: the command failed; the end of its log follows.
    """
    code = start(folder, token).wait(LIMIT)
    if code:
        raise RuntimeError(f"the run ended with exit code {code}:\n{(folder / 'log.txt').read_text()[-2000:]}")


def differences(expected: Path, found: Path) -> list[str]:
    """Return the files of the outputs, samples and metrics that differ between two runs' folders."""
    return [
        name
        for name in sorted({*_results(expected), *_results(found)})
        if _content(expected / name) != _content(found / name)
    ]


def _results(run: Path) -> Iterator[str]:
    for path in run.glob("stages/**/*"):
        inside = path.relative_to(run)
        if path.is_file() and ("output" in inside.parts or path.name in {"metrics.jsonl", "rollouts.jsonl"}):
            yield str(inside)


def _content(path: Path) -> Any:
    """Return a file's bytes; of JSON, the values that do not measure time."""
    if not path.exists():
        return None
    if path.suffix == ".jsonl" and "output" not in path.parts:
        # Trainings in parallel write rows as they come to them: the order of rows is one of time, too.
        return sorted(json.dumps(_timeless(json.loads(line)), sort_keys=True) for line in path.read_text().splitlines())
    return _timeless(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not any(part in k for part in TIMES)}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def left_behind(folder: Path, token: str, memory: set[str]) -> list[str]:
    """Return the processes, temporary files and shared memory that are left; processes have ten seconds to end."""
    deadline = time.monotonic() + 10
    while (alive := _processes(token)) and time.monotonic() < deadline:
        time.sleep(0.2)
    shared = set(os.listdir("/dev/shm")) - memory if os.path.isdir("/dev/shm") else set()
    return [
        *(f"process {process}" for process in alive),
        *(f"temporary {path.name}" for path in (folder / "tmp").iterdir() if not path.name.startswith(KEPT_BY_TORCH)),
        *(f"shared memory {name}" for name in sorted(shared)),
    ]


def _processes(token: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TOKEN) == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline())[:80])
        except psutil.Error:
            continue
    return found


def interrupted_run(root: Path, number: int, moments: int, seed: int, expected: Path) -> Outcome:
    """Interrupt one run at several moments, finish it, and compare it with the uninterrupted one."""
    folder, token, draw = root / f"run{number}", f"{os.getpid()}-{number}", random.Random(f"{seed}, {number}")
    memory = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    prepare(folder)
    outcome = Outcome()
    for _ in range(moments):
        outcome.moments.append(interrupt(folder, token, draw, number))
        print(f"run {number}: {outcome.moments[-1]}", flush=True)
    # Nobody can clean up what a process that was killed with SIGKILL had in its temporary folder but the system.
    shutil.rmtree(folder / "tmp")
    finish(folder, token)
    outcome.differences = differences(expected, folder / "run")
    outcome.left = left_behind(folder, token, memory)
    return outcome


def run(root: Path, moments: int, runs: int, seed: int) -> list[Outcome]:
    """Run uninterrupted once, and interrupted `runs` times with `moments` interruptions in all."""
    whole = root / "whole"
    prepare(whole)
    begun = time.monotonic()
    finish(whole, f"{os.getpid()}-whole")
    print(f"uninterrupted: {time.monotonic() - begun:.0f} s", flush=True)
    shares = [moments // runs + (number < moments % runs) for number in range(runs)]
    return [interrupted_run(root, n, share, seed, whole / "run") for n, share in enumerate(shares) if share]


def print_table(outcomes: Sequence[Outcome]) -> None:
    """Print the number of moments by signal and target, and what differs or is left."""
    moments = [moment for outcome in outcomes for moment in outcome.moments]
    table = Table(title=f"{len(moments)} interruptions of {len(outcomes)} runs", title_justify="left")
    for name in ("signal", *TARGETS, "stages that were running"):
        table.add_column(name)
    for sent in SIGNALS:
        own = [moment for moment in moments if moment.sent == sent]
        counts = [str(sum(moment.target == target for moment in own)) for target in TARGETS]
        table.add_row(sent.name, *counts, ", ".join(sorted({moment.stage or "-" for moment in own})))
    Console(width=140).print(table)
    for number, outcome in enumerate(outcomes):
        differing = ", ".join(outcome.differences) or "nothing differs"
        print(f"run {number}: {len(outcome.moments)} interruptions; {differing}; left: {outcome.left or 'nothing'}")


def main() -> None:
    """Interrupt, compare, and print what came of it; exit code 1 if anything differs or is left."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three interruptions of one run")
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    parser.add_argument("--folder", type=Path, help="folder of the runs, kept; default: a temporary one")
    options = parser.parse_args()
    moments, runs = (3, 1) if options.quick else (options.moments, options.runs)
    with tempfile.TemporaryDirectory(prefix="gemsmith-kill-") as temporary:
        outcomes = run(options.folder or Path(temporary), moments, runs, options.seed)
    print_table(outcomes)
    if options.json:
        rows = [
            row
            for number, outcome in enumerate(outcomes)
            for row in (
                Row(f"run {number}: interruptions", len(outcome.moments), "", "at least", 1),
                Row(f"run {number}: files that differ", len(outcome.differences), "files", "at most", 0),
                Row(f"run {number}: left behind", len(outcome.left), "", "at most", 0),
            )
        ]
        write_rows(rows, options.json)
    sys.exit(any(outcome.differences or outcome.left for outcome in outcomes))


if __name__ == "__main__":
    main()
