import pytest

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.evals.comparison import Gain, check_expected, gain, gain_line
from gemsmith.evals.config import Expectation
from tests.messages import raises_facts


def scores(**rates):
    policies = [
        {"stage": stage, "pass_rate": {"mean": mean, "low": mean - half, "high": mean + half}}
        for stage, (mean, half) in rates.items()
    ]
    return {"policies": policies}


def compared(mean, low, high, p_value=0.01, task=None):
    """Scores of `sft` and `aligned`, whose own intervals overlap, with their difference."""
    difference = {"mean": mean, "low": low, "high": high, "p_value": p_value, "prompts": 9}
    entry = {"stage": "aligned", "than": "sft", "task": task, "pass_rate": difference, "reward": None}
    return {**scores(sft=(0.25, 0.5), aligned=(0.25 + mean, 0.5)), "differences": [entry]}


def test_a_gain_is_the_paired_difference_in_points():
    assert gain(compared(0.25, 0.125, 0.375), "aligned", "sft") == Gain(25.0, 12.5, 37.5, 0.01, True)
    assert gain(compared(0.25, 0.125, 0.375), "sft", "aligned") == Gain(-25.0, -37.5, -12.5, 0.01, True)
    assert not gain(compared(0.25, -0.125, 0.375), "aligned", "sft").apart


def test_scores_of_earlier_versions_compare_the_policies_own_intervals():
    apart = gain(scores(sft=(0.25, 0.05), aligned=(0.5, 0.05)), "aligned", "sft")
    assert apart == Gain(100 * (0.5 - 0.25), None, None, None, True)
    assert not gain(scores(sft=(0.25, 0.15), aligned=(0.5, 0.15)), "aligned", "sft").apart  # 0.40 > 0.35


def test_a_stage_that_was_not_evaluated_is_named():
    with raises_facts(UserError, "`warp`", "sft", "`policies`"):
        gain(scores(sft=(0.5, 0.1)), better="warp", worse="sft")


def test_a_gain_can_be_of_one_task():
    found = compared(-0.1, -0.2, 0.0, task="sums")
    for policy, mean in zip(found["policies"], (0.2, 0.1), strict=True):
        policy["by_task"] = {
            "sums": {"pass_rate": {"mean": mean, "low": mean, "high": mean}},
            "talk": {"pass_rate": None},
        }
    assert gain(found, better="aligned", worse="sft", task="sums").points == pytest.approx(-10)
    with raises_facts(UserError, 'task "talk"', "sums"):
        gain(found, better="aligned", worse="sft", task="talk")


@pytest.mark.parametrize(
    ("found", "wanted", "met"),
    [
        ((0.25, 0.125, 0.375), {"by": 20}, True),
        ((0.25, 0.125, 0.375), {"by": 30}, False),
        ((0.25, -0.125, 0.375), {"by": 20}, False),
        ((0.25, -0.125, 0.375), {"by": 20, "apart": False}, True),
        ((-0.25, -0.375, -0.125), {}, False),
    ],
)
def test_an_expected_gain_needs_its_size_and_an_interval_above_0(found, wanted, met):
    expected = [Expectation(better="aligned", than="sft", **wanted)]
    if met:
        (line,) = check_expected(compared(*found), expected)
        assert line == gain_line("aligned", "sft", gain(compared(*found), "aligned", "sft"))
    else:
        with raises_facts(RunError, "aligned", "sft", f"{100 * found[0]:+.1f} points", "expected at least"):
            check_expected(compared(*found), expected)


def test_a_gain_is_one_line_with_its_interval_and_p_value():
    assert gain_line("aligned", "sft", Gain(25.0, 12.5, 37.5, 0.0004, True)) == (
        "aligned: pass rate +25.0 points from sft (+12.5 to +37.5, p < 0.001)"
    )
    assert gain_line("aligned", "sft", Gain(-1.0, -3.0, 1.0, 0.312, False), "sums") == (
        "aligned: pass rate on sums -1.0 points from sft (-3.0 to +1.0, p = 0.31)"
    )
