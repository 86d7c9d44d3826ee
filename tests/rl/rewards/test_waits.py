"""Rewards that hang: progress messages while waiting, and the error at the time limit."""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.compose import open_rewards
from gemsmith.rl.rewards.config import CodeReward, MathReward, RewardConfig
from tests.messages import assert_facts
from tests.rl.rewards.test_contract import reward_model
from tests.sandboxes.code.fusion_server import hang, serving

STUCK = "def f(x):\n    while True: pass"
HOSTILE = r"\boxed{\sum_{k=1}^{100000001} \sin(k)/k}"
TESTS = {"function": "f", "calls": [[[2], 4]]}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gemsmith.contracts.waits.FIRST_WORD", 0.2)


def ended(stage: Stage, name: str, completion: str) -> str:
    """Return the message of the error that ends a score whose reward hangs."""
    with open_rewards([name], stage) as rewards, pytest.raises((UserError, RunError)) as caught:
        rewards.score(["p"], [completion], {"answer": [r"\sqrt{7}"], "tests": [TESTS]})
    assert not any("waiting" in thread.name for thread in threading.enumerate())
    return str(caught.value)


def words(said: list[str], name: str) -> list[str]:
    return [line for line in said if f"reward {name} to score" in line]


def test_a_function_that_hangs(with_function: Callable[..., Stage], listener):
    stage = with_function("import time\ndef f(completions, **columns): time.sleep(1000)", time_limit=0.5)
    message = ended(stage, "mine", "x")
    assert words(listener.said, "mine") == [
        f"waiting for reward mine to score 1 completions: {after} s of at most 0.5 s" for after in (0.2, 0.4)
    ]
    assert "reward mine (mine.py:f)" in message
    assert_facts(message, "waited 0.5 s", "function to return", "raise the reward's `time_limit`")


@pytest.mark.parametrize(
    ("reward", "completion", "facts"),
    [
        (MathReward(kind="math", time_limit=0.3), HOSTILE, ["reward it (math)", "time_limit of 0.3 s", "comparisons"]),
        (CodeReward(kind="code", time_limit=0.3), STUCK, ["reward it (code)", "time_limit of 0.3 s", "programs"]),
    ],
    ids=["math", "code"],
)
def test_a_completion_that_hangs_its_verifier(
    stage: Stage, listener, reward: RewardConfig, completion: str, facts: list[str]
):
    stage.rewards = {"it": reward}
    message = ended(stage, "it", completion)
    assert words(listener.said, "it") == ["waiting for reward it to score 1 completions: 0.2 s of at most 0.3 s"]
    assert_facts(message, *facts, "raise the reward's `time_limit`")


def test_a_service_that_hangs_is_named_with_its_address(stage: Stage, listener):
    with serving(hang) as server:
        stage.rewards = {"it": CodeReward(kind="code", backend="http", url=server.url, time_limit=0.5)}
        message = ended(stage, "it", STUCK)
    assert words(listener.said, "it")[0] == "waiting for reward it to score 1 completions: 0.2 s of at most 0.5 s"
    assert_facts(message, f"1 of 1 programs at {server.url}")


def test_a_service_that_hangs_holds_no_thread_once_the_rewards_are_closed(stage: Stage):
    before, begun = set(threading.enumerate()), time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts connections and never replies
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        stage.rewards = {"it": CodeReward(kind="code", backend="http", url=url, time_limit=1.0)}
        ended(stage, "it", STUCK)
        for thread in set(threading.enumerate()) - before:
            thread.join(max(0.0, begun + 3.0 - time.monotonic()))
            assert not thread.is_alive(), thread.name


def test_a_reward_model_that_is_late(tmp_path: Path, stage: Stage):
    config, inputs = reward_model(tmp_path)
    stage.rewards, stage.inputs = {"it": config.model_copy(update={"time_limit": 1e-4})}, inputs
    before = threading.active_count()
    message = ended(stage, "it", "x")
    assert threading.active_count() <= before  # a thread that still computes would abort the process at exit
    assert_facts(message, "reward it (reward_model)", "1 completions", "time_limit of 0.0001 s")
    assert "raise the reward's `time_limit`" in message
