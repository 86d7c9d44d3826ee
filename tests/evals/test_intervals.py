import numpy as np
import pytest

from gemsmith.evals.intervals import Interval, bootstrap_mean


def test_the_mean_is_over_completions_not_over_prompts():
    interval = bootstrap_mean([1.0, 1.0, 1.0, 0.0], [7, 7, 7, 9])
    assert interval.mean == (1 + 1 + 1 + 0) / 4


def test_two_prompts_have_bounds_that_can_be_counted_by_hand():
    interval = bootstrap_mean([0.0, 1.0], [0, 1])
    # a resample is {0,0}, {0,1}, {1,0} or {1,1}: means 0, 1/2, 1/2, 1, so a quarter of them lies at either end
    assert (interval.low, interval.mean, interval.high) == (0.0, 0.5, 1.0)


def test_half_width_is_two_standard_errors_of_the_prompts():
    values = np.random.default_rng(1).normal(size=400)
    interval = bootstrap_mean(values.tolist(), range(400))
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(400), rel=0.06)


def test_more_samples_of_the_same_prompts_do_not_narrow_the_interval():
    passed = ([0.0] * 10 + [1.0] * 10) * 8
    prompts = list(range(20)) * 8
    assert bootstrap_mean(passed, prompts) == bootstrap_mean(passed[:20], prompts[:20])


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    repetitions, prompts, samples, covered = 300, 60, 4, 0
    for seed in range(repetitions):
        easiness_P = generator.beta(2.0, 2.0, size=prompts)  # mean 2 / (2 + 2) = 0.5; samples of a prompt are alike
        passed_PN = generator.random((prompts, samples)) < easiness_P[:, None]
        number_PN = np.repeat(np.arange(prompts), samples)
        interval = bootstrap_mean(passed_PN.ravel().astype(float), number_PN, seed=seed, resamples=500)
        covered += interval.low <= 0.5 <= interval.high
    assert 0.91 <= covered / repetitions <= 0.98


def test_prompts_that_agree_give_no_width_and_no_rounding():
    assert bootstrap_mean([0.0] * 6, [0, 0, 1, 1, 2, 2]) == Interval(0.0, 0.0, 0.0)
    third = bootstrap_mean([0.0, 0.0, 1.0] * 3, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    assert third.low == third.mean == third.high == 1 / 3


def test_equal_seeds_give_equal_intervals_and_others_do_not():
    values = np.random.default_rng(2).normal(size=50).tolist()
    assert bootstrap_mean(values, range(50), seed=1) == bootstrap_mean(values, range(50), seed=1)
    assert bootstrap_mean(values, range(50), seed=1) != bootstrap_mean(values, range(50), seed=2)


@pytest.mark.parametrize(("values", "prompts"), [([], []), ([1.0], [0, 1])])
def test_missing_values_are_refused(values, prompts):
    with pytest.raises(ValueError, match="expected one each"):
        bootstrap_mean(values, prompts)


@pytest.mark.parametrize(("low", "high", "overlaps"), [(0.5, 0.9, True), (0.6, 0.9, True), (0.61, 0.9, False)])
def test_intervals_that_touch_overlap(low, high, overlaps):
    ours, other = Interval(0.5, 0.4, 0.6), Interval(0.7, low, high)
    assert ours.overlaps(other) == other.overlaps(ours) == overlaps
