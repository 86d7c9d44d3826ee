import pytest
from pydantic import ValidationError

from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.compose import open_rewards
from gemsmith.rl.rewards.config import LengthReward
from tests.messages import raises_facts


def scores(stage: Stage, completions: list[str], **config: object):
    stage.rewards = {"it": LengthReward(kind="length", **config)}  # type: ignore[arg-type]
    with open_rewards(["it"], stage) as rewards:
        return rewards.score(["p"] * len(completions), completions, {}).each["it"]


def test_it_is_one_inside_and_falls_linearly_to_zero_at_slack_beyond(stage: Stage):
    lengths = [0, 1, 2, 3, 4, 6, 8, 9, 10, 12, 13]
    expected = [0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1 / 2, 0.0, 0.0, 0.0]  # 1 - distance / 2
    assert scores(stage, ["word " * n for n in lengths], low=4, high=8, slack=2) == pytest.approx(expected)


def test_one_bound_is_enough(stage: Stage):
    assert scores(stage, ["a b c d", "a b c d e", ""], high=4, slack=4) == [1.0, 0.75, 1.0]
    assert scores(stage, ["a b c d e", "a", ""], low=4, slack=4) == [1.0, 0.25, 0.0]


def test_without_slack_it_is_all_or_nothing(stage: Stage):
    assert scores(stage, ["a b", "a b c", "a"], low=2, high=2, slack=0) == [1.0, 0.0, 0.0]


def test_characters_are_those_of_unicode_without_white_space_around(stage: Stage):
    assert scores(stage, [" 日本語 \n", "a b c"], unit="characters", high=3, slack=4) == [1.0, 0.5]


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"slack": 1}, ["neither `low` nor `high`"]),
        ({"slack": 1, "low": 5, "high": 4}, ["`low` is 5", "`high` is 4"]),
        ({"low": 5}, ["slack", "required"]),
        ({"low": 5, "slack": 1, "unit": "tokens"}, ["unit", "'words' or 'characters'"]),
    ],
)
def test_a_length_that_nothing_has_is_refused_in_the_recipe(fields: dict[str, object], facts: list[str]):
    with raises_facts(ValidationError, *facts):
        LengthReward(kind="length", **fields)  # type: ignore[arg-type]
