"""WARP: weight-averaged rewarded policies (Rame et al. 2024, arXiv 2406.16768, Algorithm 1).

Each iteration trains M runs from one start, each with its own EMA anchor, merges them by SLERP of their task vectors,
and interpolates from the start towards the merge (LITI). Merging streams the weights from disk.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.processes import count, rank
from gemsmith.contracts.reading import as_object, reading
from gemsmith.contracts.stage import Stage, write_atomically
from gemsmith.policy.config import EngineConfig
from gemsmith.policy.liti_points import write_line
from gemsmith.policy.loading.load import load_policy, save_policy, stage_policy
from gemsmith.policy.training.processes import initialise_processes, wait_for_all
from gemsmith.rl.rewards.compose import Rewards, open_rewards
from gemsmith.rl.rollouts.estimators import record_estimators
from gemsmith.rl.stages.warp.config import WarpStage
from gemsmith.rl.stages.warp.pareto_front import held_out, measure_front
from gemsmith.rl.stages.warp.run import WarpRun, train_run, train_runs
from gemsmith.weights.merge import interpolate, slerp

REPORT = "warp.json"


def run(config: WarpStage, stage: Stage) -> None:
    """Train and merge in each iteration, then save the chosen point of the final LITI line to `stage.output`."""
    if (
        stage.output / REPORT
    ).exists():  # the run was killed after saving and before the stage was recorded as finished
        return
    initialise_processes()
    engine = stage.engine or EngineConfig()
    if fault := config.parallel_fault(count(), deepspeed=engine.deepspeed is not None):
        raise UserError(fault)
    start = _start(config, stage)
    beginning = merged = start
    examples = held_out(config, stage)  # before training, so that missing held-out prompts fail early
    record_estimators([config.run_config(0, number) for number in range(config.runs)], stage)
    merges: list[dict[str, Any]] = []
    with open_rewards(config.inner.rewards, stage) as rewards:
        for iteration in range(config.iterations):
            finals = _trained(config, stage, rewards, beginning, iteration)
            folder = stage.folder / f"iteration-{iteration}"
            merged, groups = _merge(config, beginning, finals, folder)
            merges.append({"iteration": iteration, "groups": groups})
            if iteration < config.iterations - 1:
                beginning = _once(
                    folder / "start", lambda out, b=beginning, m=merged: interpolate(b, m, config.liti, out)
                )
        report: dict[str, Any] = {"merge": config.merge, "merges": merges}
        if config.front:
            report["front"] = measure_front(config, stage, rewards, examples, start, merged)
    _once(stage.output, lambda out: interpolate(start, merged, config.output_rate, out))
    if rank():
        return
    write_line(stage, start, merged)
    write_atomically(stage.output / REPORT, json.dumps(report, indent=1))
    # Keep the last iteration's runs and merge, which other points of the line need.
    for iteration in range(config.iterations - 1):
        shutil.rmtree(stage.folder / f"iteration-{iteration}", ignore_errors=True)


def _start(config: WarpStage, stage: Stage) -> Path:
    """Return the folder of the initial policy, writing the policy to disk if it has no folder yet."""
    source = config.policy
    assert source is not None
    if source.from_ is not None and source.rope is None:
        return stage_policy(stage.inputs[source.from_], source.liti)

    def write(folder: Path) -> None:
        save_policy(load_policy(source, stage.inputs, stage.root, seed=stage.seed), folder)

    return _once(stage.folder / "start", write)


def _trained(config: WarpStage, stage: Stage, rewards: Rewards, beginning: Path, iteration: int) -> list[Path]:
    """Train the unfinished runs of an iteration and return the folders of all its trained policies."""
    assert config.policy is not None
    runs = [
        WarpRun(
            policy=config.policy,
            inner=config.run_config(iteration, number),
            beginning=beginning,
            folder=stage.folder / f"iteration-{iteration}" / f"run-{number}",
            iteration=iteration,
            run=number,
            part=(iteration * config.runs + number, config.iterations * config.runs),
        )
        for number in range(config.runs)
    ]
    if config.parallel > 1:
        lengths = [inner.steps for inner in config.run_configs]
        left = [run for run in runs if not run.final.exists()]
        before = sum(lengths[: iteration * config.runs]) + sum(run.inner.steps for run in runs if run not in left)
        train_runs(left, stage, config.parallel, before, sum(lengths))
    for run in runs:
        if not run.final.exists():
            train_run(run, stage, rewards if run.inner.rewards == config.inner.rewards else None)
    return [run.final for run in runs]


def _merge(config: WarpStage, beginning: Path, finals: list[Path], folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Merge the runs' task vectors; return the merge's folder and its angles and norms, saved in `merge.json`."""
    merged, kept = folder / "merged", folder / "merge.json"
    if rank() == 0 and not (merged.exists() and kept.exists()):
        shutil.rmtree(merged, ignore_errors=True)
        groups = slerp(beginning, finals, merged, config.group, config.merge)
        write_atomically(kept, json.dumps([asdict(group) | {"norm_ratio": group.norm_ratio} for group in groups]))
    wait_for_all()
    with reading(kept, "the angles and norms of a merge", "delete it, and run the same command again"):
        return merged, [as_object(group) for group in json.loads(kept.read_text(encoding="utf-8"))]


def _once(out: Path, write: Any) -> Path:
    """Write a folder in the first process unless it exists; `write` must create it atomically."""
    if rank() == 0 and not out.exists():
        write(out)
    wait_for_all()
    return out
