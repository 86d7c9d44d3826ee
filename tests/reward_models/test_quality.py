import math
from collections.abc import Sequence

import pytest

from gemsmith.reward_models.pairs import Pair
from gemsmith.reward_models.quality import calibration_error, length_correlation, quality
from tests.messages import assert_facts


def pair(prompt: str, tokens: tuple[int, int], task: str | None = None) -> Pair:
    """Return a pair with a prompt of two tokens and completions of the given lengths."""
    chosen, rejected = ((7,) * (2 + length) for length in tokens)
    return Pair(prompt, chosen, rejected, prompt_tokens=2, task=task)


def margin_of(confidence: float) -> float:
    return math.log(confidence / (1 - confidence))


def error_of(confidences: Sequence[float], wrong: int) -> float:
    """Return the calibration error if the first `wrong` pairs are ranked wrongly."""
    margins = [margin_of(confidence) for confidence in confidences]
    return calibration_error([-m if i < wrong else m for i, m in enumerate(margins)])


def test_calibration_error_compares_confidence_with_the_share_that_is_right():
    assert error_of([0.8] * 10, wrong=2) == pytest.approx(0.0)  # 80% confident, 80% right
    assert error_of([0.8] * 10, wrong=5) == pytest.approx(0.8 - 0.5)
    assert error_of([0.93] * 10, wrong=0) == pytest.approx(1.0 - 0.93)  # too little confidence counts too
    assert calibration_error([0.0] * 3) == 0.0  # ties: half confident, half right
    assert calibration_error([-800.0]) == pytest.approx(1.0)  # no overflow, and in the last bin


def test_gaps_of_one_bin_cancel_and_those_of_two_bins_do_not():
    same_bin, two_bins = [0.91, 0.94], [0.91, 0.96]  # ten bins from 0.5 to 1 are 0.05 wide
    assert error_of(same_bin, wrong=1) == pytest.approx(abs((0 - 0.91) + (1 - 0.94)) / 2)
    assert error_of(two_bins, wrong=1) == pytest.approx((abs(0 - 0.91) + abs(1 - 0.96)) / 2)


def test_length_correlation_is_pearsons():
    # deviations of the rewards -1, 0, 1 and of the lengths -2, 1, 1: 3 / sqrt(2 * 6)
    assert length_correlation([1.0, 2.0, 3.0], [10, 13, 13]) == pytest.approx(3 / math.sqrt(12))
    assert length_correlation([1.0, 2.0], [5, 5]) is None
    assert length_correlation([1.0, 1.0], [5, 6]) is None


def test_a_model_that_pays_for_length_is_right_only_where_the_longer_side_was_chosen():
    pairs = [pair("a", (5, 3)), pair("b", (4, 1)), pair("c", (2, 6)), pair("d", (3, 3))]
    found = quality([(float(long), float(short)) for long, short in (p.lengths for p in pairs)], pairs)
    assert found.length_correlation == pytest.approx(1.0)
    assert found.chosen_longer and found.chosen_shorter
    assert (found.chosen_longer.accuracy.mean, found.chosen_longer.pairs) == (1.0, 2)
    assert (found.chosen_shorter.accuracy.mean, found.chosen_shorter.pairs) == (0.0, 1)
    assert found.accuracy.mean == (1 + 1 + 0 + 0.5) / 4
    assert found.mean_reward == (5 + 3 + 4 + 1 + 2 + 6 + 3 + 3) / 8
    losses = [math.log1p(math.exp(-margin)) for margin in (5 - 3, 4 - 1, 2 - 6, 3 - 3)]
    assert found.log_loss == pytest.approx(sum(losses) / 4)


def test_accuracy_is_told_for_each_task_and_pairs_without_one_count_in_the_whole():
    pairs = [pair("a", (1, 1), "sums"), pair("a", (1, 1), "sums"), pair("b", (1, 1), "words"), pair("c", (1, 1))]
    found = quality([(1.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 0.0)], pairs)
    assert {task: (subset.accuracy.mean, subset.pairs) for task, subset in found.by_task.items()} == {
        "sums": (0.5, 2),
        "words": (1.0, 1),
    }
    assert found.accuracy.mean == 0.75
    one_prompt = found.by_task["sums"].accuracy  # two pairs of one prompt are one observation
    assert one_prompt.high - one_prompt.low == pytest.approx(2 * 1.959964 * 0.5 / math.sqrt(1 + 1.959964**2), abs=1e-6)
    assert found.chosen_longer is None and found.chosen_shorter is None and found.length_correlation is None
    assert quality([(1.0, 0.0)], pairs[3:]).by_task == {}


def test_a_model_that_diverged_is_told_of_and_stops_nothing():
    pairs = [pair("a", (5, 3)), pair("b", (4, 1))]
    found = quality([(math.nan, math.inf), (1.0, -math.inf)], pairs)
    assert found.accuracy.mean == 0.5 and math.isnan(found.calibration_error) and found.length_correlation is None
    assert_facts(found, "50.0%", "held-out pairs")
