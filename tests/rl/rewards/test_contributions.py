"""Composition of a step's rewards, by arithmetic."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import sqrt
from typing import Any

import pytest
from pydantic import ValidationError

from gemsmith.rl.rewards.config import RewardConfig
from gemsmith.rl.rewards.contributions import Composed, Moments, compose
from gemsmith.rl.rewards.metrics import share_metrics
from tests.messages import raises_facts

Values = Sequence[float | None]


def composed(
    terms: Mapping[str, Mapping[str, Any]],
    raw: Mapping[str, Values],
    prompt: Sequence[int] | None = None,
    task: Sequence[str | None] | None = None,
    running: Mapping[str, Moments] | None = None,
) -> Composed:
    count = len(next(iter(raw.values())))
    configs = {name: RewardConfig(**fields) for name, fields in terms.items()}
    return compose(configs, raw, prompt or [0] * count, task or [None] * count, running or {})


def learnt(term: Mapping[str, Any], values: Values, prompt: Sequence[int] | None = None) -> list[float]:
    """Return the totals of a single reward."""
    return composed({"it": term}, {"it": values}, prompt).total


def test_plain_rewards_are_summed_with_their_weights_and_none_is_nothing() -> None:
    found = composed({"a": {"weight": 2.0}, "b": {"weight": -0.5}}, {"a": [1.0, 0.0, None], "b": [3.0, None, None]})
    assert found.total == [2.0 * 1 - 0.5 * 3, 0.0, 0.0]
    assert found.counted == {"a": [True, True, False], "b": [True, False, False]}


def test_a_batch_is_normalised_by_all_its_values() -> None:
    # mean 4, variance (9 + 1 + 1 + 9) / 4 = 5; values that do not apply (None) are left out and stay 0
    values = [1.0, 3.0, None, 5.0, 7.0]
    assert learnt({"normalise": "batch", "weight": 2.0}, values) == pytest.approx(
        [2 * -3 / sqrt(5), 2 * -1 / sqrt(5), 0.0, 2 * 1 / sqrt(5), 2 * 3 / sqrt(5)]
    )


def test_a_group_is_normalised_by_the_values_of_its_own_prompt() -> None:
    # completions of policy and anchor to one prompt form one group, wherever they are in the list
    assert learnt({"normalise": "group"}, [1.0, 10.0, 3.0, 10.0, 30.0, 30.0], [0, 1, 0, 1, 1, 1]) == [
        -1,
        -1,
        1,
        -1,
        1,
        1,
    ]


@pytest.mark.parametrize("normalise", ["batch", "group", "running"])
@pytest.mark.parametrize("values", [[0.1] * 3, [1e9 + 0.1] * 7, [5.0, 5.0 + 1e-7, 5.0], [2.0]])
def test_values_that_are_alike_are_no_difference(normalise: str, values: list[float]) -> None:
    assert learnt({"normalise": normalise}, values) == [0.0] * len(values)


def test_running_moments_are_of_all_completions_so_far_and_survive_a_checkpoint() -> None:
    term = {"it": {"normalise": "running"}}
    first = composed(term, {"it": [1.0, 3.0]})
    assert first.total == [-1.0, 1.0]
    kept = {name: Moments(**moments) for name, moments in json.loads(json.dumps(
        {name: asdict(moments) for name, moments in first.running.items()}
    )).items()}  # fmt: skip
    assert kept == first.running
    second = composed(term, {"it": [5.0, None, 7.0]}, running=kept)  # values 1, 3, 5, 7: mean 4, variance 5
    assert second.total == pytest.approx([1 / sqrt(5), 0.0, 3 / sqrt(5)])
    assert first.running["it"].count == 2 and second.running["it"].count == 4


def test_a_value_is_clipped_after_it_is_normalised_and_before_its_weight() -> None:
    assert learnt({"clip": [-1, 2], "weight": 3.0}, [-5.0, 1.5, 5.0]) == [3 * -1, 3 * 1.5, 3 * 2]
    # 0, 0, 0, 4: mean 1, variance (1 + 1 + 1 + 9) / 4 = 3
    assert learnt({"normalise": "batch", "clip": [-1, 1]}, [0, 0, 0, 4]) == pytest.approx([*[-1 / sqrt(3)] * 3, 1.0])


GATED = {"right": {}, "good": {"gate": "right", "weight": 2.0}}


def test_a_reward_counts_only_where_its_gate_is_open() -> None:
    found = composed(GATED, {"right": [1.0, 0.0, 1.0, None], "good": [-3.0, 9.0, 5.0, 9.0]})
    # the least contribution of `good` is 2 * -3; where `right` did not apply, it is not above 0 either
    assert found.total == [1 + 2 * -3, 0 + 2 * -3, 1 + 2 * 5, 2 * -3]
    assert found.counted["good"] == [True, False, True, False]


def test_a_closed_gate_contributes_no_more_than_nothing() -> None:
    assert composed(GATED, {"right": [1.0, 0.0], "good": [4.0, 9.0]}).total == [1 + 2 * 4, 0.0]
    assert composed(GATED, {"right": [0.0, 0.0], "good": [4.0, 9.0]}).total == [0.0, 0.0]


def test_a_closed_gate_is_not_left_by_giving_no_value() -> None:
    found = composed(GATED, {"right": [1.0, 0.0, 1.0], "good": [-1.0, None, None]})
    assert found.total == [1 + 2 * -1, 2 * -1, 1 + 0]


@pytest.mark.parametrize("weight", [2.0, -2.0])
@pytest.mark.parametrize("normalise", ["none", "batch", "group", "running"])
def test_no_open_gate_is_worse_than_a_closed_one(normalise: str, weight: float) -> None:
    terms = {"right": {"weight": 0.0}, "good": {"gate": "right", "weight": weight, "normalise": normalise}}
    gate = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    total = composed(
        terms, {"right": gate, "good": [3.0, 9.0, -7.0, None, -9.0, 0.5, None, 2.0]}, [0, 0, 0, 1, 1, 1, 1, 0]
    ).total
    closed = {t for t, g in zip(total, gate, strict=True) if g == 0}
    assert len(closed) == 1 and closed.pop() <= min(t for t, g in zip(total, gate, strict=True) if g == 1)


def test_what_a_closed_gate_hides_is_in_no_mean() -> None:
    terms = {"right": {"weight": 0.0}, "good": {"gate": "right", "normalise": "batch"}}
    assert composed(terms, {"right": [1.0, 1.0, 0.0], "good": [1.0, 3.0, 500.0]}).total == [-1.0, 1.0, -1.0]


def test_a_gate_has_a_threshold_and_may_have_a_gate_itself() -> None:
    terms = {"a": {"weight": 0.0}, "b": {"weight": 0.0, "gate": "a"}, "c": {"gate": "b", "gate_above": 0.5}}
    raw = {"a": [1.0, 1.0, 0.0], "b": [0.6, 0.5, 0.6], "c": [1.0, 1.0, 1.0]}
    assert composed(terms, raw).counted["c"] == [True, False, False]
    assert composed(terms, raw).total == [1.0, 0.0, 0.0]


def test_a_row_of_another_task_gets_nothing_whatever_the_gate() -> None:
    terms = {"right": {}, "good": {"gate": "right", "tasks": ["math"]}}
    found = composed(terms, {"right": [1.0, 0.0, 0.0], "good": [-2.0, 5.0, None]}, task=["math", "math", "chat"])
    assert found.total == [1 - 2, -2, 0.0]


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"clip": [2, 1]}, ["clip", "[2, 1]", "[low, high]"]),
        ({"clip": [0, float("nan")]}, ["clip", "nan", "low < high"]),
        ({"weight": float("inf")}, ["weight", "finite"]),
        ({"gate_above": 1.0}, ["gate_above", "without `gate`"]),
        ({"tasks": []}, ["tasks", "at least 1 item"]),
        ({"normalise": "sometimes"}, ["normalise", "'none', 'batch', 'group' or 'running'"]),
    ],
)
def test_fields_that_say_nothing_sensible_are_refused(fields: dict[str, Any], facts: list[str]) -> None:
    with raises_facts(ValidationError, *facts):
        RewardConfig(**fields)


def cut_off(term: Mapping[str, Any], values: Values, finished: Sequence[bool], prompt: Sequence[int]) -> Composed:
    """Compose one reward whose completions may be cut off."""
    config = RewardConfig(**term)
    return compose({"it": config}, {"it": values}, prompt, [None] * len(values), {}, finished)


def test_a_left_out_completion_counts_as_the_mean_of_its_prompts_others() -> None:
    finished = [True, True, False, True, False, False]
    values = [-4.0, -6.0, None, -1.0, None, None]
    found = cut_off({"cut_off": "none", "weight": 2.0}, values, finished, [0, 0, 0, 1, 1, 2])
    # prompt 0: 2 * (-4 - 6) / 2; prompt 1: 2 * -1; prompt 2 has no other completion: the mean of all, 2 * -11 / 3
    assert found.total == pytest.approx([-8, -12, -10, -2, -2, 2 * -11 / 3])
    assert found.counted["it"] == [True, True, False, True, False, False]


def test_completions_that_are_all_left_out_count_as_nothing() -> None:
    assert cut_off({"cut_off": "none"}, [None, None], [False, False], [0, 0]).total == [0.0, 0.0]


def test_a_row_of_another_task_is_not_left_out() -> None:
    config = RewardConfig(cut_off="none", tasks=["sums"])
    found = compose({"it": config}, {"it": [4.0, None]}, [0, 0], ["sums", "talk"], {}, [True, False])
    assert found.total == [4.0, 0.0]


def test_a_penalty_needs_its_treatment() -> None:
    with raises_facts(ValidationError, "cut_off_penalty", "cut_off is score", "`cut_off: penalty`"):
        RewardConfig(cut_off_penalty=2.0)


def test_the_spread_is_the_variance_of_contributions_within_prompts() -> None:
    # `right` differs within prompt 0 only: (1/4 + 0) / 2. `liked` is 0.1 * 20 or 0.1 * 30 within each: variance 0.25.
    # The means, 0.25 and 2.5, and the difference between prompts do not count.
    found = composed(
        {"right": {}, "liked": {"weight": 0.1}},
        {"right": [0.0, 1.0, 0.0, 0.0], "liked": [20.0, 30.0, 30.0, 20.0]},
        [0, 0, 1, 1],
    )
    assert found.spread == pytest.approx({"right": 0.125, "liked": 0.25})
    assert share_metrics(found.spread) == pytest.approx({"reward/right_share": 1 / 3, "reward/liked_share": 2 / 3})


def test_a_single_reward_has_no_share() -> None:
    assert share_metrics({"right": 0.25}) == {}
    assert share_metrics({"right": 0.0, "liked": 0.0}) == {}
