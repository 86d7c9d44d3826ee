"""Stages that sample with vLLM train on the trainer's log-probabilities; a failed weight transfer stops the run."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import ReasoningGymData
from gemsmith.evals.config import EvaluateStage
from gemsmith.evals.evaluate_stage import run as evaluate
from gemsmith.policy.config import PolicyConfig
from gemsmith.rl.rewards.config import MathReward, PythonReward
from gemsmith.rl.stages.reinforcement.config import BondStage
from gemsmith.rl.stages.reinforcement.stage import run as train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]
SUMS = ReasoningGymData.model_validate(
    {"source": "reasoning_gym", "task": "chain_sum", "size": 60, "prompt": "{metadata[expression]} =", "holdout": 0.2}
)
REWARD = "def even(prompts, completions, **columns):\n    return [sum(map(ord, c)) % 7 / 7 for c in completions]\n"


def bond(**more: Any) -> BondStage:
    fields = {"id": "aligned", "kind": "bond", "policy": PolicyConfig(model="tiny"), "data": "sums"}
    fields |= {"rewards": ["even"], "steps": 3, "batch": 8, "anchor_rate": 0.3, "importance_cap": 2.0, "log_every": 1}
    fields |= {"sampling": {"max_tokens": 6, "temperature": 1.2}}
    return BondStage.model_validate(fields | {"sampler": {"backend": "vllm", "cache_gib": 0.5}} | more)


def stage_in(folder: Path, name: str, **inputs: Path) -> Stage:
    (folder / "even.py").write_text(REWARD)
    rewards = {"even": PythonReward(kind="python", target="even.py:even"), "right": MathReward(kind="math")}
    return Stage(name, folder / name, 0, root=folder, data={"sums": SUMS}, rewards=rewards, inputs=inputs)


def test_bond_learns_with_lora_and_its_policy_is_evaluated(tmp_path: Path) -> None:
    stage = stage_in(tmp_path, "aligned")
    train(bond(learning_rate=3e-3, lora={"rank": 4, "alpha": 8}), stage)
    rows = rows_of(stage)
    assert len(rows) == 3 and rows[-1]["kl_to_initial"] != rows[0]["kl_to_initial"]
    for row in rows:
        assert row["sampler_gap/policy"] < 1e-3 and row["sampler_gap/anchor"] < 1e-3
        assert row["sync_seconds"] > 0
    fields = {"id": "scores", "kind": "evaluate", "policies": ["aligned"], "data": "sums", "rewards": ["right"]}
    fields |= {"samples": 2, "sampling": {"max_tokens": 6}, "sampler": {"backend": "vllm", "cache_gib": 0.5}}
    scores = stage_in(tmp_path, "scores", aligned=stage.output)
    evaluate(EvaluateStage.model_validate(fields), scores)
    assert (scores.output / "scores.json").exists()


def rows_of(stage: Stage) -> list[dict[str, float]]:
    return [json.loads(line) for line in (stage.folder / "metrics.jsonl").read_text().splitlines()]


def test_the_next_step_is_drawn_from_the_present_weights_while_this_one_is_learnt(tmp_path: Path) -> None:
    stage = stage_in(tmp_path, "aligned")
    iterated = {"form": "bond", "n": 3, "quantile_samples": 4, "anchor": "periodic", "anchor_every": 2}
    train(bond(learning_rate=3e-3, steps=4, overlap=True, anchor_rate=None, **iterated), stage)
    first, *later = rows_of(stage)
    assert first["sampler_gap/policy"] < 1e-3 and first["importance"] == pytest.approx(1, abs=0.02)
    assert "drift" not in first
    for row in later:
        assert row["drift"] > 0.01 and row["importance"] != 1
    for row in later[:-1]:  # no weights are transferred after the last step
        assert row["sampler_gap/policy"] < 1e-3 and row["sampler_gap/anchor"] < 1e-3


def test_without_learning_both_ways_draw_the_same(tmp_path: Path) -> None:
    shown = {}
    for name, overlap in [("one_by_one", False), ("overlapped", True)]:
        stage = stage_in(tmp_path, name)
        train(bond(learning_rate=0, overlap=overlap, save_every=1), stage)
        shown[name] = [json.loads(line)["completion"] for line in (stage.folder / "rollouts.jsonl").open()]
    assert shown["overlapped"] == shown["one_by_one"] and len(set(shown["overlapped"])) > 3


@pytest.mark.parametrize("overlap", [False, True])
def test_weights_that_are_not_handed_over_stop_the_run_and_are_called_stale(
    overlap: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gemsmith.policy.samplers.vllm_sampler import VllmSampler

    monkeypatch.setattr(VllmSampler, "sync", lambda self: None)
    with pytest.raises(UserError, match=r"stale weights.*the initial policy"):
        train(bond(learning_rate=0.1, steps=4, overlap=overlap), stage_in(tmp_path, "aligned"))
