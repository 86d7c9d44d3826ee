"""What rewards are told about rollouts."""

import json
from pathlib import Path

import pytest

from contracts.stage import Stage
from curation.config import ReasoningGymData
from policy.config import PolicyConfig
from rl.config import BondStage
from rl.rewards.config import PythonReward
from rl.train import run


def test_a_reward_knows_which_completions_were_cut_off(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def whole(prompts, completions, finished):\n    return [float(f) for f in finished]\n"
    )
    config = BondStage.model_validate(
        {
            **{"id": "s", "kind": "bond", "policy": PolicyConfig(model="tiny"), "data": "sums", "rewards": ["whole"]},
            **{"steps": 3, "batch": 8, "learning_rate": 1e-4, "sampling": {"max_tokens": 150}},
        }
    )
    data = ReasoningGymData.model_validate({"source": "reasoning_gym", "task": "chain_sum", "size": 40})
    rewards = {"whole": PythonReward(kind="python", target="mine.py:whole")}
    run(config, Stage("s", tmp_path / "stage", 0, root=tmp_path, data={"sums": data}, rewards=rewards))
    rows = [json.loads(line) for line in (tmp_path / "stage/metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    assert 0 < sum(row["ended"] for row in rows) < 3  # random weights end some of them within 150 tokens
    assert [row["reward"] for row in rows] == pytest.approx([row["ended"] for row in rows])
