"""Rewards that a stage names besides those it learns from, and the gates of those that it does."""

from pathlib import Path
from typing import Any

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.curation.config import ReasoningGymData
from gemsmith.policy.config import PolicyConfig
from gemsmith.recipes.pipeline.pipeline import Pipeline, build_pipeline
from gemsmith.recipes.report.curves import chosen_metrics
from gemsmith.recipes.schema.source import read_recipe, read_source
from gemsmith.reward_models.config import WarmStage
from gemsmith.rl.algorithms.bond_config import BondAlgorithm
from gemsmith.rl.rewards.config import MathReward, RewardModelReward
from gemsmith.rl.stages.warp.config import WarpStage

TINY = PolicyConfig(model="tiny")


def pipeline(folder: Path, gate: str | None = None, control: str = "helpful") -> Pipeline:
    training: dict[str, Any] = {"data": "sums", "steps": 1, "batch": 2, "learning_rate": 1e-4}
    inner = BondAlgorithm(
        kind="bond", rewards=["correct"], control=[control] if isinstance(control, str) else control, **training
    )
    data = ReasoningGymData(source="reasoning_gym", task="chain_sum", size=10)
    return build_pipeline(
        [
            WarpStage(id="aligned", kind="warp", policy=TINY, inner=inner),
            WarmStage(id="warm", kind="warm", policy=TINY, **training),
        ],
        name="it",
        root=folder,
        data={"sums": data},
        rewards={
            "correct": MathReward(kind="math", gate=gate),
            "helpful": RewardModelReward(kind="reward_model", from_="warm"),
        },
    )


def test_a_reward_model_that_only_controls_is_trained_first_and_given_to_the_stage(tmp_path: Path):
    warm, aligned = pipeline(tmp_path).nodes
    assert (warm.id, aligned.id) == ("warm", "aligned")
    assert aligned.rewards == ("correct", "helpful") and aligned.inputs == ("warm",)


def test_a_control_that_is_no_reward_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r'stages.0.inner.control.0: found the unknown reward "helpfull".*"helpful"'):
        pipeline(tmp_path, control="helpfull")


def test_a_gate_that_is_not_learnt_beside_its_reward_is_refused(tmp_path: Path):
    with pytest.raises(
        UserError, match=r'rewards.correct.gate: stage aligned: found "helpful", expected another reward'
    ):
        pipeline(tmp_path, gate="helpful")


def written(folder: Path, fields: str) -> Path:
    file = folder / "it.yaml"
    file.write_text(
        f"name: it\npolicy: {{model: tiny}}\nrewards:\n  a: {{kind: python, target: 'a.py:f', {fields}}}\nstages:\n"
        "- {id: w, kind: warm, data: d, steps: 1, batch: 2, learning_rate: 1.0e-4}\n"
    )
    return file


def test_every_field_that_shapes_a_reward_can_be_written_in_yaml(tmp_path: Path):
    fields = "weight: 2, clip: [-1, 0.5], normalise: group, gate: b, gate_above: 1, tasks: [t], time_limit: 5"
    reward = read_recipe(read_source(written(tmp_path, f"{fields}, options: {{day: '2024-01-01'}}"))).rewards["a"]
    assert (reward.clip, reward.tasks, reward.weight) == ([-1, 0.5], ["t"], 2)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("clip: [1, 0]", "clip is [1, 0]: expected [low, high] with low < high"),
        ("clip: [.nan, 1]", "clip is [nan, 1]: expected [low, high]"),
        ("clip: [0]", "rewards.a.clip: found a list, expected at least 2 items"),
        ("clip: [0, 1, 2]", "rewards.a.clip: found a list, expected at most 2 items"),
        ("time_limit: .inf", "rewards.a.time_limit: found inf, expected a finite number"),
        ("weight: .nan", "rewards.a.weight: found nan, expected a finite number"),
        ("weight: 1, weight: 2", 'found the key "weight" a second time'),
        ("options: {day: 2024-01-01}", "option day is a date; expected text, numbers,"),
    ],
)
def test_a_field_that_cannot_be_is_told_with_its_line(tmp_path: Path, fields: str, words: str):
    with pytest.raises(UserError) as caught:
        read_recipe(read_source(written(tmp_path, fields)))
    assert words in str(caught.value)
    assert "it.yaml:4: " in str(caught.value)


def test_the_report_draws_controls_beside_the_rewards_and_no_panels_of_their_spread():
    row = {"reward": 1, "reward/a": 1, "reward/a_std": 1, "reward/a_counted": 1, "control/c": 1, "length": 3}
    assert chosen_metrics([row, row]) == ["reward", "reward/a", "control/c", "length"]
