import os

import pytest

from gemsmith.contracts.intervals import mean_interval
from gemsmith.evals.metrics import KLToInitial, MeanReward, PassRate


@pytest.fixture
def build(tmp_path):
    return lambda metric: metric(keep_in_memory=True, cache_dir=str(tmp_path))


def test_pass_rate_counts_rewards_of_at_least_one(build):
    result = build(PassRate).compute(predictions=[1.0, 0.99, 1.5, -2.0], prompts=[0, 0, 1, 1])
    assert result["mean"] == (1 + 0 + 1 + 0) / 4


def test_mean_reward_is_the_mean_with_its_interval(build):
    rewards, prompts = [0.25, 0.5, -1.0, 3.0], [0, 0, 1, 1]
    result = build(MeanReward).compute(predictions=rewards, prompts=prompts)
    expected = mean_interval(rewards, prompts)
    assert result == {"mean": (0.25 + 0.5 - 1.0 + 3.0) / 4, "low": expected.low, "high": expected.high}


def test_kl_is_the_mean_difference_of_log_probabilities(build):
    result = build(KLToInitial).compute(predictions=[-1.0, -2.0], references=[-1.5, -4.0], prompts=[0, 1])
    assert result["mean"] == (0.5 + 2.0) / 2
    # two prompts: the standard error is 1.5 / 2, and t with one degree of freedom is 12.71
    assert (result["low"], result["high"]) == pytest.approx((1.25 - 12.706 * 0.75, 1.25 + 12.706 * 0.75), rel=1e-3)


def test_kl_of_a_policy_to_itself_is_exactly_zero(build):
    logprobs = [-1.1, -0.3, -7.7]
    result = build(KLToInitial).compute(predictions=logprobs, references=logprobs, prompts=[0, 1, 2])
    assert result["mean"] == 0.0


def test_numbers_keep_double_precision_through_the_metric(build):
    assert build(MeanReward).compute(predictions=[0.1], prompts=[0])["mean"] == 0.1


def test_a_metric_can_be_computed_twice_and_leaves_no_files(build, tmp_path):
    metric = build(MeanReward)
    assert metric.compute(predictions=[1.0], prompts=[0])["mean"] == 1.0
    assert metric.compute(predictions=[2.0], prompts=[0])["mean"] == 2.0
    assert not [name for _, _, names in os.walk(tmp_path) for name in names]
