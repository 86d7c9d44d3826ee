"""An evaluation's KL needs token ids that mean the same to both policies; padding rows of the embedding may differ."""

import json
from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import ReasoningGymData
from gemsmith.evals.config import EvaluateStage
from gemsmith.evals.evaluate_stage import run
from gemsmith.policy.loading.load import save_policy
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.policy import Policy
from gemsmith.rl.rewards.config import MathReward
from tests.messages import raises_facts
from tests.policy.text.test_vocabulary import resized

pytestmark = pytest.mark.usefixtures("shallow_tiny")
DATA = {
    "source": "reasoning_gym",
    "task": "chain_sum",
    "size": 20,
    "holdout": 0.3,
    "prompt": "{metadata[expression]} =",
}


def evaluate(other: Policy, root: Path) -> dict[str, float]:
    save_policy(tiny_policy(seed=3), root / "start")
    save_policy(other, root / "other")
    inputs = {name: root / name for name in ("start", "other")}
    data, rewards = {"sums": ReasoningGymData.model_validate(DATA)}, {"correct": MathReward(kind="math")}
    fields = {"id": "scores", "kind": "evaluate", "policies": ["start", "other"], "data": "sums", "prompts": 2}
    config = EvaluateStage.model_validate(
        {**fields, "samples": 2, "rewards": ["correct"], "sampling": {"max_tokens": 4, "temperature": 0.2}}
    )
    stage = Stage("scores", root / "stage", 0, root, inputs, data, rewards)
    run(config, stage)
    kl: dict[str, float] = json.loads((stage.output / "scores.json").read_text())["policies"][1]["kl"]
    return kl


def test_a_policy_with_more_rows_has_a_kl_from_one_with_fewer(tmp_path: Path) -> None:
    policy = resized(tiny_policy(seed=3), 576)
    policy.model.get_input_embeddings().weight.data[512:] = 0.0  # unlikely, like the released padding
    assert abs(evaluate(policy, tmp_path)["mean"]) < 0.5 * 4  # -log(1 - mass of the padding) per token


def test_a_sampled_padding_row_is_named(tmp_path: Path) -> None:
    policy = resized(tiny_policy(seed=3), 576)
    policy.model.get_input_embeddings().weight.data[512:] *= 10
    with raises_facts(UserError, "other", "start", "512 rows", "KL"):
        evaluate(policy, tmp_path)


def test_a_policy_with_another_tokenizer_has_no_kl(tmp_path: Path) -> None:
    policy = tiny_policy(seed=3)
    policy.tokenizer.add_tokens(["<new>"])
    with raises_facts(UserError, "<new>", "id 512 for other", "no id for start"):
        evaluate(policy, tmp_path)
