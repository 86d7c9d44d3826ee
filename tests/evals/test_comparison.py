import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.evals.comparison import gain


def scores(**rates):
    policies = [
        {"stage": stage, "pass_rate": {"mean": mean, "low": mean - half, "high": mean + half}}
        for stage, (mean, half) in rates.items()
    ]
    return {"policies": policies}


def test_gain_is_in_points_of_sampled_pass_rate():
    result = gain(scores(sft=(0.25, 0.05), aligned=(0.5, 0.05)), better="aligned", worse="sft")
    assert result.points == 100 * (0.5 - 0.25)
    assert result.apart


def test_overlapping_intervals_are_not_apart():
    result = gain(scores(sft=(0.25, 0.15), aligned=(0.5, 0.15)), better="aligned", worse="sft")
    assert not result.apart  # 0.25 + 0.15 = 0.40 > 0.35 = 0.5 - 0.15


def test_a_loss_is_a_negative_gain():
    assert gain(scores(sft=(0.5, 0.05), aligned=(0.25, 0.05)), better="aligned", worse="sft").points == -25


def test_a_stage_that_was_not_evaluated_is_named():
    with pytest.raises(UserError, match=r"`warp` .*sft.*`policies`"):
        gain(scores(sft=(0.5, 0.1)), better="warp", worse="sft")


def test_a_gain_can_be_of_one_task():
    found = scores(sft=(0.25, 0.05), aligned=(0.5, 0.05))
    for policy, mean in zip(found["policies"], (0.2, 0.1), strict=True):
        policy["by_task"] = {
            "sums": {"pass_rate": {"mean": mean, "low": mean, "high": mean}},
            "talk": {"pass_rate": None},
        }
    assert gain(found, better="aligned", worse="sft", task="sums").points == pytest.approx(100 * (0.1 - 0.2))
    with pytest.raises(UserError, match=r'task "talk" .*sums'):
        gain(found, better="aligned", worse="sft", task="talk")
