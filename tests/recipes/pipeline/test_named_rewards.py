"""Rewards that a stage names besides those it learns from, and the gates of those that it does."""

from pathlib import Path
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.curation.config import ReasoningGymData
from gemsmith.policy.config import PolicyConfig
from gemsmith.recipes.pipeline.pipeline import Pipeline, build_pipeline
from gemsmith.reward_models.config import WarmStage
from gemsmith.rl.algorithms.bond_config import BondAlgorithm
from gemsmith.rl.rewards.config import MathReward, RewardModelReward
from gemsmith.rl.stages.warp.config import WarpStage
from tests.messages import raises_facts

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
    with raises_facts(UserError, "stages.0.inner.control.0", '"helpfull"', '"helpful"'):
        pipeline(tmp_path, control="helpfull")


def test_a_gate_that_is_not_learnt_beside_its_reward_is_refused(tmp_path: Path):
    with raises_facts(UserError, "rewards.correct.gate", "stage aligned", '"helpful"'):
        pipeline(tmp_path, gate="helpful")
