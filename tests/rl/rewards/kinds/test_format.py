import pytest
from pydantic import ValidationError

from gemsmith.contracts.errors import RunError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.compose import open_rewards
from gemsmith.rl.rewards.config import FormatReward
from gemsmith.rl.rewards.kinds.format import has_one_box
from tests.messages import assert_facts, raises_facts


def scores(stage: Stage, completions: list[str], **config: object):
    stage.rewards = {"it": FormatReward(kind="format", **config)}  # type: ignore[arg-type]
    with open_rewards(["it"], stage) as rewards:
        return rewards.score(["p"] * len(completions), completions, {}).each["it"]


def test_a_pattern_must_be_found_or_match_all_of_it(stage: Stage):
    completions = ["<think>a</think> 7", "so: <think>a</think> 7", "7"]
    pattern = r"<think>.*</think>\s*\d"
    assert scores(stage, completions, pattern=pattern) == [1.0, 1.0, 0.0]
    assert scores(stage, completions, pattern=pattern, whole=True) == [1.0, 0.0, 0.0]


def test_json_is_all_of_the_completion_and_has_the_keys(stage: Stage):
    completions = [
        '{"a": 1, "b": [2]}',
        ' [1, "a"]\n',
        '{"a": 1}',
        '```json\n{"a": 1}\n```',
        '{"a": NaN}',
        "{'a': 1}",
        "",
    ]
    assert scores(stage, completions, json=True) == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert scores(stage, completions, json=True, keys=["a", "b"]) == [1.0] + [0.0] * 6


def test_json_that_breaks_parsers_is_none(stage: Stage):
    assert scores(stage, ["[" * 100_000, "9" * 10_000], json=True) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "one"),
    [
        (r"so \boxed{7}.", True),
        (r"\boxed{\frac{1}{2}}", True),
        (r"\boxed{\{1, 2\}}", True),
        (r"\boxed{ \} }", True),
        (r"\boxed{7} or \boxed{8}", False),
        (r"\boxed{\boxed{7}}", False),
        (r"\boxed{7", False),
        (r"\boxed{7\}", False),
        (r"\boxed{7\\", False),
        (r"\boxed{ }", False),
        (r"\boxed 7", False),
    ],
)
def test_there_is_one_box_closed_and_not_empty(text: str, one: bool):
    assert has_one_box(text) is one


def test_of_several_demands_it_is_the_share_that_is_met(stage: Stage):
    completions = [r"[7]", r"\boxed{7}", r"so \boxed{7}", "x"]
    assert scores(stage, completions, pattern="7", json=True, boxed=True) == pytest.approx([2 / 3, 2 / 3, 2 / 3, 0])
    assert scores(stage, completions, pattern="^so", boxed=True) == [0.0, 0.5, 1.0, 0.0]


def test_a_completion_made_for_the_pattern_does_not_match_and_that_is_said(
    stage: Stage, listener, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gemsmith.rl.rewards.kinds.format.PATIENCE", 0.2)
    hostile = "a" * 5_000 + "bc"
    assert scores(stage, [hostile, "aaac"], pattern="(a|aa|a+)+c") == [0.0, 1.0]
    (line,) = listener.said
    assert_facts(line, "reward it (format)", "pattern", "0.2 s", "1 of 2 completions")
    with raises_facts(RunError, "time_limit of 0.1 s", "sample 1", "`pattern`"):
        scores(stage, [hostile, "aaac"], pattern="(a|aa|a+)+c", time_limit=0.1)


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({}, ["`pattern`, `json: true` or `boxed: true`"]),
        ({"json": True, "whole": True}, ["`whole`", "without `pattern`"]),
        ({"pattern": "a", "keys": ["a"]}, ["`keys`", "without `json: true`"]),
        ({"pattern": "so (a"}, ["pattern", "`so (a`", "regular expression: missing ) at position 5"]),
    ],
)
def test_demands_that_cannot_be_are_refused_in_the_recipe(fields: dict[str, object], facts: list[str]):
    with raises_facts(ValidationError, *facts):
        FormatReward(kind="format", **fields)  # type: ignore[arg-type]
