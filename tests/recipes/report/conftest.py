"""A run folder as the runner and the stages write it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

STAGES: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "sft": ("sft", [], {"policy": {"model": "tiny", "from": None}}),
    "warm": ("warm", ["sft"], {"policy": {"model": None, "from": "sft"}}),
    "aligned": ("warp", ["sft", "warm"], {"policy": {"model": None, "from": "sft"}}),
    "scores": ("evaluate", ["sft", "aligned"], {}),
    "release": ("export", ["aligned"], {}),
}


class RunFolder:
    """Writes parts of a run, and reads what they were."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.statuses = dict.fromkeys(STAGES, "finished")
        self.write_run()

    def stage(self, id: str) -> Path:
        return self.path / "stages" / f"{id}-0123abcd"

    def write_run(self) -> None:
        rows = []
        for id, (kind, inputs, config) in STAGES.items():
            row = {"id": id, "kind": kind, "status": self.statuses[id], "seconds": 12.5, "inputs": inputs}
            rows.append(row | {"folder": f"stages/{id}-0123abcd"})
            if self.statuses[id] != "to run":
                self.write(self.stage(id) / "stage.json", {**row, "config": {"id": id, "kind": kind, **config}})
        run = {"name": "trial", "seed": 3, "started": "2026-01-02T03:04:05+00:00", "stages": rows}
        self.write(self.path / "run.json", run)

    def write(self, path: Path, content: Mapping[str, Any] | list[Mapping[str, Any]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = content if isinstance(content, list) else [content]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def interval(mean: float, half: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def policy(stage: str, rate: float, kl: float, reward: float) -> dict[str, Any]:
    return {
        "stage": stage,
        "pass_rate": interval(rate, 0.02),
        "greedy_pass_rate": interval(rate + 0.25, 0.05),
        "reward": interval(reward, 0.03),
        "rewards": {"correct": interval(rate, 0.02)},
        "kl": interval(kl, 0.04),
        "length": interval(4.25, 0.125),
        "ended": 0.975,
    }


def answers(*texts: str, right: bool) -> dict[str, Any]:
    sampled = [{"text": text, "pass": right, "reward": 0.5} for text in texts]
    return {"greedy": {"text": texts[0], "pass": right}, "sampled": sampled}


@pytest.fixture
def empty_run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


@pytest.fixture
def whole_run(empty_run: RunFolder) -> RunFolder:
    run, write = empty_run, empty_run.write
    scores = {"prompts": 300, "samples": 8, "initial": "sft", "passes": "correct"}
    scores["policies"] = [policy("sft", 0.331, 0.0, 0.62), policy("aligned", 0.684, 2.31, 1.13)]
    write(run.stage("scores") / "output" / "scores.json", scores)
    sample = {"sft": answers("4", "4", right=False), "aligned": answers("5", "= 5", right=True)}
    write(run.stage("scores") / "output" / "samples.jsonl", [{"prompt": "2 + 3 =", "answer": "5", "policies": sample}])
    write(run.stage("sft") / "metrics.jsonl", [{"step": step, "loss": 3.0 / step} for step in range(1, 41)])
    rows = [
        {"step": step, "iteration": iteration, "run": number, "loss": 0.1, "reward": 0.1 * step, "kl_to_initial": 0.2}
        for iteration in range(2)
        for number in range(2)
        for step in range(1, 31)
    ]
    write(run.stage("aligned") / "metrics.jsonl", rows)
    found = {
        "accuracy": interval(0.884, 0.02),
        "calibration_error": 0.042,
        "log_loss": 0.31,
        "length_correlation": -0.12,
    }
    members = [{"member": 0, "learning_rate": 5e-4, "dropout": 0.05, "seed": 0, **found, "kept": True}]
    warm = {"members": members, "kept": [0], "average": found, "ensemble": found, "probe": found}
    write(run.stage("warm") / "output" / "warm.json", warm | {"pairs": {"train": 10, "held_out": 500, "dropped": {}}})
    group = {"group": "model.layers.0", "shares": [0.7, 0.7], "angles": [71.9], "norms": [1.1, 1.2], "norm": 1.15}
    write(run.stage("aligned") / "output" / "warp.json", {"merges": [{"iteration": 0, "groups": [group]}]})
    proof = {"base": "sft", "largest_difference": 0.021, "relative_difference": 0.018, "reload_gap": 0.0}
    proof |= {"sequences": 12, "dtype": "float32", "parameters": 1432576}
    write(run.stage("release") / "output" / "export.json", proof)
    write(
        run.path / "environment.json", {"processor": "Abacus 3000", "cores": 2, "memory_bytes": 24 * 2**30, "gpus": []}
    )
    (run.path / "recipe.yaml").write_text("name: trial\ndescription: Sums, aligned.\n")
    return run
