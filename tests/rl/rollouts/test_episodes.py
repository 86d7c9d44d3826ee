"""Episodes of several turns: samples, feedback and rewards, with real tests in a real sandbox."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import JsonLinesData
from gemsmith.curation.example import Example
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.contract import Samples
from gemsmith.policy.text.chat import completion_ids, prompt_ids
from gemsmith.policy.weight_set import WeightSet
from gemsmith.rl.algorithms.algorithm import build
from gemsmith.rl.algorithms.turns import Episodes
from gemsmith.rl.rewards.compose import Rewards, open_rewards
from gemsmith.rl.rewards.config import CodeReward, MathReward
from gemsmith.rl.rollouts.episodes import EpisodeCollector
from gemsmith.rl.stages.reinforcement.config import ReinforceStage
from gemsmith.rl.stages.reinforcement.stage import run
from gemsmith.sandboxes.verdict import Status, Verdict
from tests.messages import raises_facts

TESTS = {"function": "f", "calls": [[[1], 2], [[5], 10], [[0], 0], [[-3], -6]]}
RIGHT, WRONG, COPIED = "def f(x): return 2 * x", "def f(x): return 2 + x", "def f(x): return {1: 2, 5: 10}[x]"
BROKEN = "def f(x) return"
PLAYED = [[RIGHT], [BROKEN, WRONG, RIGHT], [COPIED], [WRONG, WRONG, WRONG]]
"""Completions of the turns of two episodes for each of two prompts."""


class Scripted:
    """Sampler that returns the given completions, in the order of the open episodes."""

    same_weights = True

    def __init__(self, policy: Policy, played: list[list[str]]) -> None:
        self.policy, self.played, self.turn = policy, played, 0

    def sync(self) -> None:
        self.turn = 0

    def close(self) -> None:
        pass

    def sample(self, prompts: list[list[int]], n: int, seed: int, before: int = 0, **_: Any) -> Samples:
        texts = [said[self.turn] for said in self.played if len(said) > self.turn]
        self.turn += 1
        ids = [completion_ids(self.policy.tokenizer, text) for text in texts]
        assert len(prompts) == len(texts) and n == 1
        return Samples(ids, [[-0.5] * len(each) for each in ids], texts, ["stop"] * len(ids))


def _config(**fields: Any) -> ReinforceStage:
    common: dict[str, Any] = {"id": "s", "kind": "reinforce", "policy": PolicyConfig(model="tiny"), "data": "d"}
    common |= {"rewards": ["solved"], "steps": 2, "batch": 2, "learning_rate": 1e-3, "turns": 3}
    return ReinforceStage.model_validate({**common, "max_length": 1000, "sampling": {"max_tokens": 40}, **fields})


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(PolicyConfig(model="tiny"))


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rewards]:
    solved = {"solved": CodeReward(kind="code", cpu=1.0, case_cpu=0.5)}
    folder = tmp_path_factory.mktemp("episodes")
    with open_rewards(["solved"], Stage("s", folder, 0, root=folder, rewards=solved)) as opened:
        yield opened


def _collector(policy: Policy, rewards: Rewards, played: list[list[str]], said: Any = print, **fields: Any) -> Any:
    config, initial = _config(**fields), WeightSet(policy.model)
    parts = (policy, Scripted(policy, played), rewards, build(config), initial, None)
    return EpisodeCollector(*parts, batch=4, sampling=config.sampling, say=said, config=config)


EXAMPLES = [Example("Write f: twice x", columns={"tests": TESTS}), Example("Double x", columns={"tests": TESTS})]


def test_a_program_that_fails_is_told_so_and_written_again(policy: Policy, rewards: Rewards) -> None:
    rollouts, metrics = (collector := _collector(policy, rewards, PLAYED)).collect(EXAMPLES, seed=3)
    assert isinstance(rollouts, Episodes)
    assert rollouts.policy.learnt_reward_PN.flatten().tolist() == pytest.approx(
        [1.0, -0.2, 0.0, 1.0, -1.0, 0.0, 0.0, -1.0]
    )
    assert rollouts.prompt_R.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert rollouts.episode_R.tolist() == [0, 1, 1, 1, 2, 3, 3, 3]
    assert rollouts.turn_R.tolist() == [0, 0, 1, 2, 0, 0, 1, 2]
    assert [metrics[f"pass/turn_{turn}"] for turn in (1, 2, 3)] == [1 / 4, 1 / 4, 2 / 4]
    assert (metrics["turns"], metrics["no_program"], metrics["too_long"]) == (8 / 4, 1 / 8, 0.0)
    mean = (1.0 + 0.8 - 1.0 - 1.0) / 4
    assert metrics["reward"] == pytest.approx(mean) == metrics["reward/solved"]
    squares = [(earned - mean) ** 2 for earned in (1.0, 0.8, -1.0, -1.0)]
    assert metrics["reward/solved_std"] == pytest.approx((sum(squares) / 4) ** 0.5)
    second, feedback = rollouts.prompts[6], collector.shown[1]["turns"]
    assert feedback[0]["feedback"] is None and collector.shown[0]["completion"] == RIGHT
    told = (
        "Your program does not pass these tests:\n- f(1): expected 2, returned 3\n- f(5): expected 10, returned 7\n"
        "Write the whole program again, in one ```python block."
    )
    talk = [("user", "Double x"), ("assistant", WRONG), ("user", told)]
    assert second == prompt_ids(policy.tokenizer, [{"role": role, "content": text} for role, text in talk])
    assert rollouts.policy.initial_logprob_PN is not None and rollouts.policy.initial_logprob_PN.shape == (8, 1)
    sequences, _ = collector.algorithm.weigh(rollouts)
    assert all(sequence.prompt in rollouts.prompts for sequence in sequences) and len(sequences) > 4


def test_where_the_next_turn_has_no_room_the_episode_has_failed(policy: Policy, rewards: Rewards) -> None:
    room = len(prompt_ids(policy.tokenizer, EXAMPLES[0].messages)) + 40
    played = [[RIGHT], [BROKEN], [COPIED], [WRONG]]
    rollouts, metrics = _collector(policy, rewards, played, max_length=room).collect(EXAMPLES, seed=3)
    assert rollouts.policy.learnt_reward_PN.flatten().tolist() == [1.0, -1.0, -1.0, -1.0]
    assert metrics["too_long"] == 2 / 4 and metrics["turns"] == 1.0


def test_a_fault_of_the_machine_leaves_its_episode_out(
    policy: Policy, rewards: Rewards, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    collector = _collector(policy, rewards, PLAYED, said.append)
    judged, fault = collector.code.verdict, Verdict(0.0, Status.INFRASTRUCTURE_FAULT, None, "the jail was lost", 0.0)
    failing = {COPIED}
    monkeypatch.setattr(
        collector.code, "verdict", lambda text, *more: fault if text in failing else judged(text, *more)
    )
    rollouts, metrics = collector.collect(EXAMPLES, seed=3)
    assert rollouts.episode_R.tolist() == [0, 1, 1, 1, 3, 3, 3] and rollouts.prompt_R.tolist() == [0] * 4 + [1] * 3
    assert metrics["left_out"] == 1 / 4 and metrics["reward"] == pytest.approx((1.0 + 0.8 - 1.0) / 3)
    assert "1 of 4 episodes are left out" in said[0]
    failing.update({RIGHT, WRONG, BROKEN})
    collector.sampler.played = [[said[0]] for said in PLAYED]
    with raises_facts(RunError, "reward solved (code)", "any of 4 episodes", "sandbox"):
        collector.collect(EXAMPLES, seed=4)


def test_rows_without_tests_have_no_episode(policy: Policy, rewards: Rewards) -> None:
    examples = [EXAMPLES[0], Example("What is f?")]
    rollouts, metrics = _collector(policy, rewards, PLAYED[:2]).collect(examples, seed=3)
    assert rollouts.episode_R.tolist() == [0, 1, 1, 1] and metrics["left_out"] == 2 / 4


def test_only_the_code_reward_has_turns(policy: Policy, tmp_path: Path) -> None:
    for reward, facts in (
        (MathReward(kind="math"), ["rewards.solved", "expected kind code"]),
        (CodeReward(kind="code", partial=True), ["rewards.solved", "found partial", "expected none"]),
        (CodeReward(kind="code", normalise="group"), ["rewards.solved", "found normalise, clip or gate"]),
    ):
        with (
            open_rewards(["solved"], Stage("s", tmp_path, 0, root=tmp_path, rewards={"solved": reward})) as rewards,
            raises_facts(UserError, *facts),
        ):
            _collector(policy, rewards, PLAYED)


def test_a_stage_of_turns_trains_in_two_updates_a_rollout(tmp_path: Path) -> None:
    rows = [{"prompt": f"Write f {i}", "tests": TESTS} for i in range(8)]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = JsonLinesData(source="jsonl", path="tasks.jsonl", prompt="{prompt}", columns=["tests"], holdout=0.0)
    config = _config(turns=2, updates=2, sampling={"max_tokens": 4}, max_length=400)
    rewards = {"solved": CodeReward(kind="code")}
    run(config, Stage("s", tmp_path / "stage", 0, root=tmp_path, data={"d": data}, rewards=rewards))
    first, second = (json.loads(line) for line in (tmp_path / "stage/metrics.jsonl").read_text().splitlines())
    assert first["turns"] == 2.0 and first["no_program"] == 1.0 and first["reward"] == pytest.approx(-0.2 - 1.0)
    assert first.get("ratio", 1.0) == pytest.approx(1.0, abs=1e-4) and "turns" not in second
    assert torch.tensor(second["loss"]).isfinite() and (tmp_path / "stage/output").exists()
