"""Rates per second of a step's phases, and the seconds they are divided by."""

import time
from typing import Any, cast

import pytest

from gemsmith.policy.samplers.contract import Sampler, Samples
from gemsmith.rl.rollouts.prefetch import Prefetcher
from gemsmith.rl.rollouts.step_timer import StepTimer, rates

NOTHING: Any = None


class Sleeper:
    """Sampler with a fixed delay."""

    same_weights = True

    def sync(self) -> None: ...

    def close(self) -> None: ...

    def sample(self, prompts: list[list[int]], n: int, **_: Any) -> Samples:
        time.sleep(0.05)
        return Samples([], [], [], [])


def test_a_rate_is_the_count_over_the_phases_own_seconds() -> None:
    seconds = {"sampling": 2.0, "logprob": 0.5, "reward": 0.0}
    assert rates({"sampling": 300, "logprob": 20}, seconds) == {
        "sampling_tokens_per_second": 300 / 2.0,
        "logprob_tokens_per_second": 20 / 0.5,
    }
    assert rates({"reward": 4}, seconds, unit="completions") == {}  # the phase took 0 seconds


def test_drawing_takes_as_long_in_the_background_whoever_waits_for_it() -> None:
    prefetcher = Prefetcher(cast(Sampler, Sleeper()), {"policy": 1, "anchor": 2})
    prefetcher.sample_now([[1]], 0, 0)
    assert prefetcher.seconds >= 0.1  # two sets of weights, 0.05 s each
    prefetcher.seconds = 0.0
    prefetcher.start([[1]], 1, 0)
    time.sleep(0.15)
    assert prefetcher.seconds == 0.0  # of the completions that were returned last
    prefetcher.take()
    assert prefetcher.seconds >= 0.1


def test_a_rollouts_tokens_are_over_all_steps_that_learn_from_it() -> None:
    timer, whole = StepTimer(), 0.0
    for step in range(4):  # two rollouts of two steps each
        timer.begin_step()
        if step % 2 == 0:
            time.sleep(0.02)
            timer.add_rollout(100)
        timer.begin_learning(30 + step, last=step % 2 == 1)
        time.sleep(0.01)
        timer.on_optimizer_step(NOTHING, NOTHING, NOTHING)
        timer.on_step_end(NOTHING, NOTHING, NOTHING)
        row = timer.pop_means()
        assert row["learning_seconds"] >= 0.01 and row["step_seconds"] >= row["learning_seconds"]
        assert row["learning_tokens_per_second"] == pytest.approx((30 + step) / row["learning_seconds"])
        whole = row["step_seconds"] if step % 2 == 0 else whole + row["step_seconds"]
        if step % 2 == 0:
            assert "tokens_per_second" not in row
        else:
            assert row["tokens_per_second"] == pytest.approx(100 / whole)
    assert timer.pop_means() == {}
