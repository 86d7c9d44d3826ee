"""The table of an evaluation: read from a run, and from numbers that are known."""

from typing import Any

import gemsmith
from gemsmith.evals.comparison import Gain
from gemsmith.recipes.api.scores import read_scores
from tests.messages import raises_facts
from tests.recipes.api.conftest import Example


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}


def row(stage: str, rate: float) -> dict[str, Any]:
    return {
        "stage": stage,
        "pass_rate": interval(rate),
        "greedy_pass_rate": interval(rate),
        "reward": None,
        "rewards": {"brief": interval(-2.0)},
        "kl": interval(1.5),
        "length": interval(7.0),
        "ended": 0.75,
        "by_task": {"sums": {"prompts": 4, "pass_rate": None, "greedy_pass_rate": None, "reward": interval(1.0)}},
    }


SCORES = read_scores(
    {
        "prompts": 4,
        "samples": 2,
        "initial": "sft",
        "passes": "correct, solved",
        "policies": [row("sft", 0.25), row("aligned", 0.75)],
    }
)


def test_every_number_has_its_place():
    aligned = SCORES["aligned"]
    assert (aligned.pass_rate.mean, aligned.pass_rate.low) == (0.75, 0.75 - 0.1)
    assert (aligned.reward, aligned.rewards["brief"].mean, aligned.kl.mean, aligned.ended) == (None, -2.0, 1.5, 0.75)
    assert (aligned.by_task["sums"].prompts, aligned.by_task["sums"].pass_rate) == (4, None)
    assert SCORES.passes == ("correct", "solved")
    assert [policy.stage for policy in SCORES] == ["sft", "aligned"] and len(SCORES) == 2
    assert SCORES.rows()[1] == {
        "stage": "aligned",
        "pass_rate": 0.75,
        "greedy_pass_rate": 0.75,
        "reward": None,
        "reward_brief": -2.0,
        "kl": 1.5,
        "length": 7.0,
        "ended": 0.75,
    }


def test_a_gain_is_in_points():
    assert SCORES.gain("aligned", "sft") == Gain(100 * (0.75 - 0.25), None, None, None, apart=True)


def test_the_table_has_a_line_for_each_policy():
    head, sft, aligned = str(SCORES).splitlines()
    assert head.split() == ["policy", "pass", "rate", "95%", "interval", "reward", "KL", "length"]
    assert aligned.split() == ["aligned", "75.0%", "65.0", "to", "85.0", "-", "1.500", "7.0"]
    assert len(head) == len(sft) == len(aligned)


def test_an_unknown_policy_is_named_with_those_that_are_there():
    with raises_facts(gemsmith.UserError, '"algned"', "sft", '"aligned"'):
        SCORES["algned"]


def test_the_scores_of_a_run(example: Example):
    scores = example.run.scores()
    assert (scores.prompts, scores.samples, scores.initial, scores.passes) == (8, 2, "sft", ("correct",))
    assert scores == example.run.scores("scores")
    (sft,) = scores
    assert 0 <= sft.pass_rate.low <= sft.pass_rate.mean <= sft.pass_rate.high <= 1
    assert sft.kl.mean == 0
    assert sft.by_task["chain_sum"].prompts == 8
