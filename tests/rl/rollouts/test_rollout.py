"""Rollouts with gated, routed and control rewards, and the columns that rewards receive."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Silence, Stage
from gemsmith.curation.config import ReasoningGymData
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.samplers.transformers_sampler import TransformersSampler
from gemsmith.policy.weight_set import WeightSet
from gemsmith.rl.algorithms.algorithm import build
from gemsmith.rl.rewards.compose import open_rewards
from gemsmith.rl.rewards.config import PythonReward
from gemsmith.rl.rollouts.rollout import RolloutCollector, _merge_processes
from gemsmith.rl.stages.reinforcement.config import BondStage, ReinforceStage
from gemsmith.rl.stages.reinforcement.stage import run, training_prompts
from tests.messages import raises_facts

pytestmark = pytest.mark.usefixtures("shallow_tiny")


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


REWARDS = """
def long(completions, **columns):
    return [float(len(c)) for c in completions]

def even(completions, **columns):
    return [float(sum(map(ord, c)) % 2) for c in completions]

def same(completions, **columns):
    return [1.0 for _ in completions]

def secret(completions, **columns):
    return [float(len(set(c))) for c in completions]
"""


def stated(kind: str, **fields: Any) -> Any:
    """Run a small stage with a normalised and gated reward and a control."""
    given = {
        **{"id": "s", "kind": kind, "policy": PolicyConfig(model="tiny"), "data": "sums", "rewards": ["long", "even"]},
        **{"steps": 2, "batch": 4, "learning_rate": 1e-4, "sampling": {"max_tokens": 6}, "save_every": 1},
        **{"control": ["secret"], **fields},
    }
    return (BondStage if kind == "bond" else ReinforceStage).model_validate(given)


def stage_at(folder: Path, **long: Any) -> Stage:
    (folder / "mine.py").write_text(REWARDS)
    data = ReasoningGymData.model_validate({"source": "reasoning_gym", "task": "chain_sum", "size": 40})
    rewards = {name: PythonReward(kind="python", target=f"mine.py:{name}") for name in ("even", "same", "secret")}
    rewards["long"] = PythonReward(kind="python", target="mine.py:long", **long)
    return Stage("s", folder / "stage", 0, root=folder, data={"sums": data}, rewards=rewards)


def test_each_reward_is_told_as_it_came_beside_what_is_learnt(tmp_path: Path) -> None:
    run(stated("reinforce", samples=4), stage_at(tmp_path, normalise="batch", gate="even"))
    rows, metrics = (
        [json.loads(line) for line in (tmp_path / "stage" / name).read_text().splitlines()]
        for name in ("rollouts.jsonl", "metrics.jsonl")
    )
    assert len(rows) == 2 * 3 and len(metrics) == 2
    for row in rows:
        assert row["rewards"]["long"] == len(row["completion"])
        assert row["reward"] == row["rewards"]["long"] + row["rewards"]["even"]
        assert row["control"] == {"secret": len(set(row["completion"]))}
        assert row["learnt"] != row["reward"]
    for row in metrics:
        assert row["reward"] == pytest.approx(row["reward/long"] + row["reward/even"])
        assert row["reward/long_counted"] == row["reward/even"] and "reward/even_counted" not in row
        assert row["reward/even_std"] == pytest.approx(math.sqrt(row["reward/even"] * (1 - row["reward/even"])))
        assert row["control/secret"] > 0 and "reward/secret" not in row
        # each open gate adds 1; normalised values there sum to 0, and a closed gate contributes the smallest
        assert row["reward_learnt"] < row["reward/even"]


def test_a_gate_that_the_stage_does_not_learn_from_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with raises_facts(UserError, "rewards.long.gate", 'found "even"', "expected another reward"):
        run(stated("bond", rewards=["long"]), stage_at(tmp_path, gate="even"))
    assert not (tmp_path / "stage").exists()


def test_a_row_that_no_reward_scores_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with raises_facts(UserError, "no reward", "long scores math"):
        run(stated("bond", rewards=["long"]), stage_at(tmp_path, tasks=["math"]))


def test_a_control_that_is_learnt_from_is_refused() -> None:
    with raises_facts(ValidationError, "control names even", "`rewards`"):
        stated("bond", control=["even"])


@pytest.mark.parametrize(("kind", "words"), [("bond", ["100% of the pairs"]), ("reinforce", [])])
def test_a_run_of_ties_is_told_where_nothing_is_learnt_from_them(tmp_path: Path, kind: str, words: list[str]) -> None:
    said: list[str] = []

    class Listener(Silence):
        def say(self, message: str) -> None:
            said.append(message)

    stage = stage_at(tmp_path)
    stage.sink = Listener()
    run(stated(kind, rewards=["same"], control=[], steps=7, batch=2, sampling={"max_tokens": 2}), stage)
    assert [line[: len("100% of the pairs")] for line in said if "ties" in line] == words


def test_a_control_that_falls_while_the_reward_rises_is_told_at_the_end(tmp_path: Path) -> None:
    said: list[str] = []

    class Listener(Silence):
        def say(self, message: str) -> None:
            said.append(message)

    stage = stage_at(tmp_path)
    stage.sink = Listener()
    counting = "calls = []\ndef count(completions, **columns):\n    calls.append(0)\n"
    counting += "    return [SIGN * len(calls)] * len(completions)\n"
    for name, sign in (("rises", "1.0"), ("falls", "-1.0")):
        (tmp_path / f"{name}.py").write_text(counting.replace("SIGN", sign))
        stage.rewards[name] = PythonReward(kind="python", target=f"{name}.py:count")
    run(stated("reinforce", rewards=["rises"], control=["falls"], steps=12, sampling={"max_tokens": 2}), stage)
    (line,) = [line for line in said if "control falls" in line]
    # Three blocks of four steps: the control is highest in steps 1 to 4, and the last block is 9 to 12.
    assert line.startswith("control falls diverges from the reward at KL ")
    assert line.endswith("(step 3): it fell from -2.5 to -10.5 while the reward rose from 2.5 to 10.5")


@pytest.mark.parametrize("normalise", ["batch", "group", "running"])
def test_a_step_in_two_shares_is_rewarded_as_in_one(tmp_path: Path, normalise: Any) -> None:
    stage, config = stage_at(tmp_path, normalise=normalise), stated("bond")
    policy = load_policy(PolicyConfig(model="tiny"))
    anchor = WeightSet(policy.model)
    examples = training_prompts(config, policy, stage)[:4]
    with open_rewards(config.rewards, stage) as rewards, open_rewards(config.control, stage) as control:
        sampler = TransformersSampler(policy, config.sampling, anchor)
        collector = RolloutCollector(
            policy,
            sampler,
            rewards,
            build(config),
            WeightSet(policy.model),
            anchor,
            4,
            config.sampling,
            control=control,
        )
        prompts, nothing = collector._prompts(examples), ([], 1, 0)
        whole = collector._roll_out(examples, prompts, 0, 0, nothing)
        shares = [collector._roll_out(examples[s], prompts[s], 0, s.start, nothing) for s in (slice(0, 3), slice(3, 4))]
        (alone, one), (merged, two) = (
            collector._compose_rewards(examples, part) for part in (whole, _merge_processes(shares))
        )
        apart, _ = collector._compose_rewards(examples[:3], shares[0])
    assert one == two
    for weights in ("policy", "anchor"):
        assert torch.equal(alone[weights].learnt_reward_PN, merged[weights].learnt_reward_PN)
    of_its_own_share = torch.allclose(alone["anchor"].learnt_reward_PN[:3], apart["anchor"].learnt_reward_PN)
    assert of_its_own_share == (normalise == "group")
