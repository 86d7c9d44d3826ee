from collections.abc import Callable
from typing import Any

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.compose import open_rewards
from gemsmith.rl.rewards.config import MathReward, RewardModelReward
from tests.messages import raises_facts

LENGTH = "def f(completions, **columns):\n    return [None if not c else len(c) for c in completions]\n"


def test_the_total_is_the_weighted_sum_and_each_reward_is_kept_as_it_came(with_function: Callable[..., Stage]):
    stage = with_function(LENGTH, weight=-0.25)
    stage.rewards = {**stage.rewards, "correct": MathReward(kind="math", weight=2.0)}
    columns = {"answer": ["72", "5", "5"], "task": [None] * 3, "system": [None] * 3}
    with open_rewards(["correct", "mine"], stage) as rewards:
        table = rewards.score(["a", "b", "c"], ["72", "6", ""], columns)
    assert table.each == {"correct": [1.0, 0.0, 0.0], "mine": [2.0, 1.0, None]}
    assert table.total == [2.0 * 1 - 0.25 * 2, -0.25 * 1, 0.0]


def test_an_empty_batch_has_an_empty_table(with_function: Callable[..., Stage]):
    with open_rewards(["correct", "mine"], with_function(LENGTH)) as rewards:
        table = rewards.score([], [], {"answer": []})
    assert (table.total, table.each) == ([], {"correct": [], "mine": []})


@pytest.mark.parametrize(
    ("names", "facts"),
    [
        (["corect"], ["stage rl", "no reward 'corect'", 'did you mean "correct"?']),
        (["correct", "correct"], ["stage rl", "`rewards`", "correct twice"]),
    ],
)
def test_names_that_do_not_fit_are_refused(stage: Stage, names: list[str], facts: list[str]):
    with raises_facts(UserError, *facts):
        open_rewards(names, stage)


def test_a_reward_model_of_a_stage_that_is_not_given_is_refused(stage: Stage):
    stage.rewards = {"helpful": RewardModelReward(kind="reward_model", from_="warm")}
    with raises_facts(UserError, "reward helpful (reward_model)", "'warm'", "`from`"):
        open_rewards(["helpful"], stage)


def test_lists_of_different_lengths_are_refused(stage: Stage):
    with (
        open_rewards(["correct"], stage) as rewards,
        raises_facts(ValueError, "2 prompts", "1 values of answer"),
    ):
        rewards.score(["a", "b"], ["1", "2"], {"answer": ["1"]})


def test_a_reward_is_asked_only_about_the_rows_of_its_tasks(with_function: Callable[..., Stage]):
    stage = with_function(LENGTH, tasks=["chat", "mail"])
    stage.rewards = {**stage.rewards, "correct": MathReward(kind="math", tasks=["math"])}
    columns = {"answer": ["72", None, None], "task": ["math", "chat", None]}
    with open_rewards(["correct", "mine"], stage) as rewards:
        table = rewards.score(["a", "b", "c"], ["72", "four", "no"], columns)
        none_of_math = rewards.score(["b"], ["four"], {"task": ["chat"]})  # `correct` would miss its column
    assert table.each == {"correct": [1.0, None, None], "mine": [None, 4.0, None]}
    assert table.total == [1.0, 4.0, 0.0]
    assert none_of_math.each == {"correct": [None], "mine": [4.0]}


ASKED = """
def f(completions, finished, **columns):
    assert finished == EXPECTED
    return [-float(len(c)) for c in completions]
"""


@pytest.mark.parametrize(
    ("fields", "asked", "each", "total"),
    [
        ({}, [True, False, True], [-1.0, -2.0, -3.0], [-1.0, -2.0, -3.0]),
        ({"cut_off": "penalty", "cut_off_penalty": 5.0}, [True, True], [-1.0, -5.0, -3.0], [-1.0, -5.0, -3.0]),
        ({"cut_off": "none"}, [True, True], [-1.0, None, -3.0], [-1.0, -2.0, -3.0]),  # the mean of -1 and -3
    ],
)
def test_cut_off_completions_are_scored_penalised_or_left_out(
    with_function: Callable[..., Stage],
    fields: dict[str, Any],
    asked: list[bool],
    each: list[float | None],
    total: list[float],
):
    stage = with_function(ASKED.replace("EXPECTED", repr(asked)), **fields)
    with open_rewards(["mine"], stage) as rewards:
        table = rewards.score(["p"] * 3, ["a", "bb", "ccc"], {"finished": [True, False, True]})
    assert table.each["mine"] == each and table.total == total
