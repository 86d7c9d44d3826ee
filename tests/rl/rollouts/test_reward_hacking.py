"""Detection of reward hacking on series with a planted onset, and on noise without one."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from gemsmith.rl.rollouts.reward_hacking import (
    block_error,
    blocks,
    hacking_onsets,
    learnt_metric,
    onset_block,
    read_hacking_onsets,
)

ROWS = 100
RISING = [row / ROWS for row in range(ROWS)]


def noisy(values: list[float], size: float, seed: int = 0, lasting: float = 0.0) -> list[float]:
    """Add normal noise of this standard deviation and correlation between successive rows to the values."""
    draw, noise, found = random.Random(seed), 0.0, []
    for value in values:
        noise = lasting * noise + draw.gauss(0, size * math.sqrt(1 - lasting**2))
        found.append(value + noise)
    return found


def tent(peak: int) -> list[float]:
    """Return a series that rises to 1 at the given row and falls with the same slope."""
    return [1 - abs(row - peak) / ROWS for row in range(ROWS)]


def test_ten_blocks_or_fewer_where_they_would_have_less_than_four_rows():
    assert blocks(100)[3] == (30, 40) and len(blocks(100)) == 10
    assert blocks(13) == [(0, 4), (4, 8), (8, 13)]


@pytest.mark.parametrize("size", [0.0, 0.05])
def test_a_control_that_peaks_and_falls_while_the_reward_rises_parts_at_its_peak(size: float):
    assert onset_block(noisy(RISING, size), noisy(tent(35), size, seed=1)) == 3  # rows 30 to 39 hold the peak


def test_a_control_that_falls_from_the_start_parts_there():
    assert onset_block(RISING, [-value for value in RISING]) == 0


@pytest.mark.parametrize(
    ("learnt", "control"),
    [
        (RISING, RISING),  # both rise
        ([-value for value in RISING], [-value for value in RISING]),  # both fall: a failed training, not hacking
        ([0.5] * ROWS, [-value for value in RISING]),  # the reward does not rise
        (tent(35), tent(35)),  # the reward falls with the control
        (RISING, [0.5] * ROWS),
        (RISING[:11], [-value for value in RISING[:11]]),  # three blocks of four are the least
    ],
)
def test_without_a_fall_under_a_rise_nothing_parts(learnt: list[float], control: list[float]):
    assert onset_block(learnt, control) is None


@pytest.mark.parametrize("rows", [12, 40, 100])
@pytest.mark.parametrize(("lasting", "most"), [(0.0, 2), (0.3, 6), (0.6, 12)])
def test_noise_around_a_plateau_is_seldom_taken_for_a_fall(rows: int, lasting: float, most: int):
    """False alarms in at most 0.5%, 1.5% and 3% of 400 runs in which the reward rises."""
    runs = [noisy([0.5] * rows, 0.05, seed, lasting) for seed in range(400)]
    assert sum(onset_block(RISING[:rows], control) is not None for control in runs) <= most


def test_a_fall_of_a_noisy_share_is_found_where_there_are_rows_enough():
    """The control is a share of 64 completions; it falls from 0.3 to 0.1 with noise sqrt(0.2 * 0.8 / 64) = 0.05."""
    for rows, least in ((40, 0.75), (80, 0.98)):
        true = [0.3 - 0.2 * row / rows for row in range(rows)]
        found = [onset_block(RISING[:rows], noisy(true, 0.05, seed)) is not None for seed in range(200)]
        assert sum(found) / len(found) >= least


def test_the_error_of_a_block_is_that_of_a_mean_and_a_trend_is_no_noise():
    rows = 2000
    independent, lasting = (
        sum(block_error(noisy([5.0 * i / rows for i in range(rows)], 1.0, seed, rho)) for seed in range(10)) / 10
        for rho in (0.0, 0.6)
    )
    assert independent == pytest.approx(1 / math.sqrt(rows / 10), rel=0.05)
    assert lasting == pytest.approx(independent * math.sqrt(1.6 / 0.4), rel=0.1)  # (1 + rho) / (1 - rho)


def row(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "reward": step / 40, "kl_to_initial": step / 10, **more}


def test_a_parting_says_where_and_by_how_much():
    rows = [row(step, **{"control/right": 1 - step / 50, "control/form": step / 40}) for step in range(1, 41)]
    (found,) = hacking_onsets(rows, "reward")
    # Blocks of four: steps 1 to 4, whose mean is 2.5, and 37 to 40, whose mean is 38.5.
    assert found.fell == pytest.approx((1 - 2.5 / 50, 1 - 38.5 / 50))
    assert found.rose == pytest.approx((2.5 / 40, 38.5 / 40))
    assert (found.step, found.kl) == (3, pytest.approx(0.25))
    assert str(found) == (
        "control right diverges from the reward at KL 0.25 (step 3): it fell from 0.95 to 0.23 while the reward rose "
        "from 0.0625 to 0.963"
    )


def test_each_training_of_a_stage_is_judged_alone(tmp_path: Path):
    rows = [
        row(step, iteration=iteration, run=run, **{"control/right": -step if run else step})
        for iteration in range(2)
        for run in range(2)
        for step in range(1, 41)
    ]
    assert [found.training for found in hacking_onsets(rows, "reward")] == ["iteration 1, run 2", "iteration 2, run 2"]
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read_hacking_onsets(metrics, False, {"iteration": 1, "run": 1})) == 1
    assert read_hacking_onsets(metrics, False, {"iteration": 1, "run": 0}) == []
    assert read_hacking_onsets(tmp_path / "none.jsonl", False, {}) == []


def test_rows_in_which_a_control_is_not_known_are_left_out():
    falls = [row(step, **({"control/right": -step} if step % 2 else {})) for step in range(1, 81)]
    assert len(hacking_onsets(falls, "reward")) == 1
    assert hacking_onsets([row(step) for step in range(1, 81)], "reward") == []
    assert hacking_onsets([row(step, **{"control/right": math.nan}) for step in range(1, 81)], "reward") == []


def test_a_normalised_reward_is_judged_as_it_came():
    assert learnt_metric({"reward", "reward_learnt"}, normalised=False) == "reward_learnt"
    assert learnt_metric({"reward", "reward_learnt"}, normalised=True) == "reward"
    assert learnt_metric({"reward"}, normalised=False) == "reward"
