"""Rejection sampling: the kept completions of a prompt, and the counts of the others."""

from collections import Counter

import pytest

from gemsmith.rl.stages.generate.selection import Completion, fates, metrics, tally, worse_than


def one(text: str, reward: float | None = 0.0, finished: bool = True, tokens: int = 2) -> Completion:
    return Completion(text, finished, reward, {"correct": reward}, tokens)


def test_the_best_that_score_enough_are_kept_and_each_other_has_its_reason():
    drawn = [
        one("5", 1.0),
        one("4", 0.0),
        one("five", 2.0),
        one("5 5", 3.0, finished=False),
        one(" ", 3.0),
        one("x", None),
        one(" 5\n", 1.0),
        one("is 5", 1.0),
    ]
    assert fates(drawn, keep=2, at_least=1.0) == [
        "kept",  # second best; "is 5" has the same reward and was sampled later
        "below at_least",
        "kept",
        "unfinished",
        "empty",
        "without a reward",
        "duplicate",  # equals the first, up to white space
        "beyond keep",
    ]


def test_a_bound_is_itself_enough_and_without_one_anything_that_ends_is():
    assert fates([one("a", 0.5), one("b", 0.4999)], 2, 0.5) == ["kept", "below at_least"]
    assert fates([one("a", -9.0)], 1, None) == ["kept"]


def test_duplicates_of_the_best_do_not_use_up_the_places():
    assert fates([one("a", 3.0), one("a", 3.0), one("b", 1.0)], 2, None) == ["kept", "duplicate", "kept"]


def test_the_worst_answer_is_the_other_side_of_a_pair_where_it_scored_less():
    drawn = [one("a", 1.0), one("b", 0.5), one("c", 0.0), one("d", 0.0), one("e", -1.0, finished=False)]
    worst = worse_than(1.0, drawn)
    assert worst is not None and worst.text == "c"  # d was sampled later, and e is unfinished
    assert worse_than(0.0, drawn) is None


def test_metrics_are_over_all_completions_and_best_against_mean_over_prompts():
    sums: Counter[str] = Counter()
    for drawn in (
        [one("a", 1.0), one("a", 1.0), one("b", 0.0, tokens=8)],
        [one("c", 0.0), one("d", 0.2), one("e", 5, False)],
    ):
        sums.update(tally(drawn, fates(drawn, 1, 0.5)))
    assert metrics(sums) == pytest.approx(
        {
            "acceptance": 2 / 6,  # a and its copy
            "answered": 1 / 2,
            "ended": 5 / 6,
            "duplicates": 1 / 2,
            "length": (2 + 2 + 8 + 2 + 2 + 2) / 6,
            "reward": (1 + 1 + 0 + 0 + 0.2 + 5) / 6,
            "reward_best": (1 + 0.2) / 2,  # e is unfinished, so it does not count
            "reward_mean": (2 / 3 + 0.1) / 2,
        }
    )


def test_a_prompt_without_an_answer_counts_for_neither_best_nor_mean():
    drawn = [one("a", 1.0, finished=False)]
    found = metrics(tally(drawn, fates(drawn, 1, None)))
    assert "reward_best" not in found and found["answered"] == 0.0 and found["reward"] == 1.0
