"""Share of distinct n-grams, counted by hand."""

import pytest

from gemsmith.rl.rollouts.distinct import distinct_metrics, distinct_n


def test_n_grams_of_all_completions_are_counted_together_and_do_not_reach_from_one_to_the_next() -> None:
    completions = [[1, 2, 1, 2], [1, 2, 3], [4]]
    assert distinct_n(completions, 1) == 4 / 8  # 1 2 3 4, of 4 + 3 + 1
    assert distinct_n(completions, 2) == 3 / 5  # 12 21 23, of 3 + 2 + 0; n-grams across completions do not count
    assert distinct_n(completions, 3) == 3 / 3  # 121 212 123, of 2 + 1


def test_a_policy_that_has_collapsed_has_few_and_more_of_the_same_makes_it_fewer() -> None:
    assert [distinct_n([[7, 8, 9]] * copies, 2) for copies in (1, 2, 10)] == [2 / 2, 2 / 4, 2 / 20]


def test_end_tokens_do_not_count_and_what_cannot_be_told_is_left_out() -> None:
    ids, finish = [[1, 2, 99], [1, 3], [99]], ["stop", "length", "stop"]
    assert distinct_metrics(ids, finish) == {"distinct_1": pytest.approx(3 / 4), "distinct_2": 2 / 2}
    assert distinct_metrics([[1, 99], [99]], ["stop", "stop"]) == {"distinct_1": 1 / 1}
    assert distinct_metrics([[99]], ["stop"]) == {}
