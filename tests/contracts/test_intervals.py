import numpy as np
import pytest
from scipy import special

from benchmarks.intervals import cell, power
from gemsmith.contracts.intervals import Interval, mean_interval, paired_difference, rate_interval


def test_the_mean_is_over_completions_not_over_prompts():
    assert rate_interval([1.0, 1.0, 1.0, 0.0], [7, 7, 7, 9]).mean == (1 + 1 + 1 + 0) / 4
    assert mean_interval([3.0, 3.0, 3.0, 1.0], [7, 7, 7, 9]).mean == (3 + 3 + 3 + 1) / 4


def test_one_sample_for_each_of_many_prompts_has_clopper_and_pearsons_interval():
    passed = [1.0] * 60 + [0.0] * 140
    found = rate_interval(passed, range(200))
    # 60 of 200: the 2.5% quantile of Beta(60, 141) and the 97.5% quantile of Beta(61, 140)
    exact = special.betaincinv(60, 141, 0.025), special.betaincinv(61, 140, 0.975)
    assert (found.low, found.high) == pytest.approx(exact, abs=0.002)


def test_more_samples_of_the_same_prompts_do_not_narrow_the_interval():
    passed = ([0.0] * 10 + [1.0] * 10) * 8
    one, eight = rate_interval(passed[:20], range(20)), rate_interval(passed, list(range(20)) * 8)
    assert (eight.low, eight.high) == pytest.approx((one.low, one.high), abs=0.02)


@pytest.mark.parametrize("samples", [1, 8])
def test_rates_of_0_and_1_have_the_width_that_their_prompts_leave(samples):
    number = [prompt for prompt in range(50) for _ in range(samples)]
    none, whole = rate_interval([0.0] * len(number), number), rate_interval([1.0] * len(number), number)
    # without a pass among 50 prompts: 1 - 0.025^(1/50) = 0.071
    assert (none.low, none.mean) == (0.0, 0.0) and none.high == pytest.approx(1 - 0.025 ** (1 / 50), abs=0.008)
    assert (whole.low, whole.mean, whole.high) == (pytest.approx(1 - none.high), 1.0, 1.0)


# The cells where a percentile bootstrap covers least often, and one in the middle.
@pytest.mark.parametrize(
    ("prompts", "samples", "mean", "correlation"),
    [(16, 8, 0.05, 0.5), (64, 1, 0.01, 0.0), (8, 8, 0.95, 0.5), (32, 8, 0.95, 0.5), (64, 8, 0.5, 0.0)],
)
def test_intervals_cover_the_truth_and_equal_policies_are_rarely_called_different(prompts, samples, mean, correlation):
    found = cell(0, prompts, samples, mean, correlation, repeats=400)
    # at a true coverage of 0.95 and 400 replications, 0.92 is nearly three standard errors below
    assert found["coverage"] >= 0.92 and found["false differences"] <= 0.08


def test_the_interval_is_hardly_wider_than_the_bootstraps_where_that_is_right():
    found = cell(0, 200, 8, 0.5, 0.5, repeats=50)
    assert found["width"] <= 1.15 * found["bootstrap width"]


def test_a_difference_is_found_by_pairing_where_separate_intervals_overlap():
    paired, separate = power(0, 128, 8, repeats=50)
    assert paired >= 0.9 and separate <= 0.2


def test_half_width_is_students_quantile_times_the_standard_error():
    values = np.random.default_rng(1).normal(size=20)
    found = mean_interval(values.tolist(), range(20))
    # the 97.5% quantile of t with 19 degrees of freedom is 2.093
    assert (found.high - found.low) / 2 == pytest.approx(2.093 * values.std(ddof=1) / np.sqrt(20), rel=1e-3)
    assert (found.high + found.low) / 2 == pytest.approx(values.mean())


def test_prompts_that_agree_give_no_width_and_no_rounding():
    third = mean_interval([0.0, 0.0, 1.5] * 3, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    assert third == Interval(0.5, 0.5, 0.5)


def test_one_prompt_has_the_interval_of_its_completions():
    assert mean_interval([0.5, 2.0, 4.0], [3, 3, 3]) == mean_interval([0.5, 2.0, 4.0], [0, 1, 2])
    assert mean_interval([0.5], [3]) == Interval(0.5, 0.5, 0.5)


def test_a_difference_cancels_the_difficulty_of_the_prompts():
    easy, hard = [10.0, 10.2], [0.0, 0.2]
    found = paired_difference([*easy, *hard], [0, 0, 1, 1], [9.0, 9.2, -1.0, -0.9], [0, 0, 1, 1])
    # 10.1 - 9.1 = 1 and 0.1 + 0.95 = 1.05: mean 1.025, standard error 0.025, t with one degree of freedom is 12.71
    assert found.mean == pytest.approx(1.025) and found.prompts == 2
    assert found.high - found.mean == pytest.approx(12.706 * 0.025, rel=1e-3)
    assert found.p_value == pytest.approx(2 * special.stdtr(1, -1.025 / 0.025)) and found.apart


def test_only_prompts_that_both_answered_are_compared():
    found = paired_difference([3.0, 5.0, 100.0], [0, 1, 2], [1.0, 2.0, -7.0], [0, 1, 9])
    assert found.prompts == 2 and found.mean == (2.0 + 3.0) / 2
    assert paired_difference([1.0], [0], [1.0], [1]) is None


def test_equal_policies_differ_by_nothing_with_certainty_that_the_prompts_leave():
    found = paired_difference([1.0, 0.0] * 10, range(20), [1.0, 0.0] * 10, range(20))
    # two prompts are added that differ by one sample each way: variance 2 / 22 over 21
    assert found.mean == 0.0 and found.p_value == 1.0 and not found.apart
    assert found.high == -found.low == pytest.approx(2.093 * np.sqrt(2 / 22 / 21), rel=1e-3)


@pytest.mark.parametrize(("values", "prompts"), [([], []), ([1.0], [0, 1])])
@pytest.mark.parametrize("interval", [rate_interval, mean_interval])
def test_missing_values_are_refused(interval, values, prompts):
    with pytest.raises(ValueError, match="expected one each"):
        interval(values, prompts)
