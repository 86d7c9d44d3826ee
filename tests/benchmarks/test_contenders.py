"""Contenders of a comparison have equally much, and what costs grow by is read from lines."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from benchmarks.costs import exponent, slope
from benchmarks.fidelity.claims.against_trl import CRITERIA, _best, _within
from benchmarks.fidelity.toys.contenders import Clocked, Contest, shared_out, steps_kept
from benchmarks.fidelity.toys.rival_trainers import Rival, train_rival
from benchmarks.fidelity.toys.trajectory import Point, learnt
from gemsmith.policy.loading.load import save_policy
from gemsmith.policy.loading.tiny import tiny_policy

SETTING = {"prompts": 4, "samples": 2, "steps": 2, "points": 2, "asked": 8}


class Seen:
    """A reward that keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], list[str]]] = []

    def score(self, asked: list[str], completions: list[str], columns: Any) -> list[float | None]:
        self.asked.append((asked, completions))
        return [float(len(text)) for text in completions]

    def close(self) -> None:
        pass


@pytest.mark.parametrize("rival", ["grpo", "rloo"])
def test_a_rival_learns_from_the_same_prompts_and_as_many_completions_and_its_way_is_kept(
    rival: Rival, tmp_path: Path
) -> None:
    save_policy(tiny_policy(seed=0), tmp_path / "start")
    reward = Seen()
    kept = train_rival(rival, tmp_path / "start", {"learning_rate": 1e-3}, SETTING, 0, tmp_path / "way", [1, 2], reward)
    assert len(reward.asked) == 2  # once a step, from which a step's seconds are taken
    for asked, completions in reward.asked:
        assert len(asked) == len(completions) == 4 * 2
        assert asked[::2] == asked[1::2] and set(asked) <= set(learnt(SETTING, 0))
        assert all("<end_of_turn>" not in text for text in completions)
    weights = [load_file(folder / "model.safetensors") for folder in (tmp_path / "start", kept[1], kept[2])]
    name = "model.layers.0.mlp.up_proj.weight"
    assert weights[0][name].equal(weights[1][name])  # warm-up begins at a learning rate of 0
    assert not weights[1][name].equal(weights[2][name])


def test_j_bonds_draws_count_and_its_anchors_too() -> None:
    assert shared_out("reinforce", {"prompts": 16, "samples": 4}) == {"samples": 4}
    assert shared_out("bond", {"prompts": 16, "samples": 4}) == {"batch": 21}  # 21 * (1 + 2) = 63 of 64


def test_the_way_is_measured_more_often_where_it_begins() -> None:
    assert steps_kept({"steps": 64, "points": 4}) == [8, 23, 42, 64]  # 64 * (1/8, 0.354, 0.65, 1)
    assert steps_kept({"steps": 4, "points": 2}) == [1, 4]


def test_a_front_is_reward_over_kl_and_of_equal_times_the_best_reward_counts() -> None:
    points = [Point(0, 0.0, 0.0, 8.0), Point(9, 1.5, 2.0, 8.0), Point(9, 1.0, 3.0, 8.0)]
    found = Contest(points, [0.0, 5.0, 5.0], first=0.1)
    assert found.front == [(0.0, 0.0), (2.0, 1.5), (3.0, 1.0)]
    assert found.over_time == [(0.0, 0.0), (5.0, 1.5)]


def test_within_a_kl_the_best_reward_counts_whether_the_way_goes_on_to_it_or_not() -> None:
    front = [(0.0, 0.0), (1.0, 1.0), (3.0, 2.0), (2.5, 2.2)]
    assert _within(front, 2.0) == pytest.approx(1.0 + 1.2 * 1.0 / 1.5)  # between (1, 1) and (2.5, 2.2)
    assert _within(front, 3.0) == 2.2  # more reward, and nearer, than where it ends
    assert _within([(0.0, 0.0), (0.5, 0.7)], 1.0) == 0.7


def test_the_pilot_keeps_what_is_best_by_one_criterion_or_another() -> None:
    first, *_, last = CRITERIA
    scores = {criterion: 0.5 for criterion in CRITERIA}
    assert _best({0: scores | {first: 0.9}, 1: scores | {last: 0.8}, 2: {last: 0.7}}) == {0, 1}


def test_a_step_takes_the_median_time_so_that_one_policy_kept_does_not_count() -> None:
    reward = Clocked(Seen(), asked=[0.0, 1.0, 2.0, 12.0, 13.0])
    assert reward.step == 1.0


def test_what_costs_grow_by_is_the_slope_of_their_line() -> None:
    assert exponent([8, 16, 32], [2.0, 4.0, 8.0]) == pytest.approx(1.0)  # twice as much for twice as many
    assert exponent([8, 16, 32], [3.0, 3.0, 3.0]) == pytest.approx(0.0)
    assert slope([8, 16, 32], [5.0 + 0.5 * 8, 5.0 + 0.5 * 16, 5.0 + 0.5 * 32]) == pytest.approx(0.5)
