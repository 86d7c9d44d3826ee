"""The front of WARP in the report: text and drawing."""

from typing import Any

import pytest

from gemsmith.recipes.report.markup import render
from gemsmith.recipes.report.pareto_front import compare_with_runs, pareto_front_section, reward_at_kl


def at(rate: float, kl: float, reward: float, reach: float = 0.1) -> dict[str, Any]:
    def around(mean: float, reach: float) -> dict[str, float]:
        return {"low": mean - reach, "mean": mean, "high": mean + reach}

    short, length = around(reward, reach), around(4.0, 0.5)
    found = {
        "rate": rate,
        "prompts": 256,
        "reward": short,
        "kl": around(kl, 0.05 * rate),
        "length": length,
        "ended": 1.0,
    }
    return {**found, "rewards": {"short": short}, "control": {"correct": around(0.5, 0.1)}}


def front(*points: dict[str, Any], run: list[tuple[float, float]]) -> dict[str, Any]:
    return {"points": list(points), "trajectory": [{"run": 0, "points": run}], "kl_estimator": "mean log-ratio"}


def test_a_trajectory_is_read_between_its_points_and_not_beyond():
    run = [(0.0, 1.0), (2.0, 3.0), (1.0, 1.5)]  # its KL goes up and comes back
    assert reward_at_kl(run, 1.5) == pytest.approx(2.25)  # half-way from 1.5 to 3
    assert reward_at_kl(run, 2.5) is None


def test_a_point_is_above_the_runs_when_its_interval_is():
    points = [at(0, 0, 0), at(0.3, 1, 1.2), at(0.5, 2, 2.05), at(0.8, 3, 2.8), at(1, 5, 9)]
    runs = [[(0.0, 0.0), (4.0, 4.0)]]  # reward = KL up to 4; the last point went further
    assert compare_with_runs(points, runs) == {"above": [0.3], "level": [0.5], "below": [0.8]}


def test_the_front_is_drawn_with_its_rates_and_judged_in_a_sentence():
    found = front(at(0, 0, 0), at(0.5, 1, 1.5), at(1, 2, 1.9), run=[(0.0, 0.0), (1.5, 1.4)])
    text = render(pareto_front_section(found))
    assert "Rate 1 gives the most reward, 1.9 at a KL of 2 nats; its interval is apart from the other" in text
    assert "the first iteration&#x27;s runs at equal KL: 0.5 above." in text
    assert text.count('class="whisker c0"') == 2 * 3
    assert text.count('class="trail c1"') == 1
    for rate in ("0", "0.5", "1"):
        assert f">{rate}</text>" in text


def test_one_point_is_no_front():
    assert pareto_front_section(front(at(0, 0, 0), run=[])) == []
