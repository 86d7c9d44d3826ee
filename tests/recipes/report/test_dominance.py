"""The sentence about a reward that dominates the weighted sum."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gemsmith.recipes.report.contents import StageContents
from gemsmith.recipes.report.dominance import dominance_note, dominant_reward
from gemsmith.recipes.report.markup import render


@pytest.fixture
def stage(tmp_path: Path) -> StageContents:
    return StageContents("aligned", "bond", "policy", "finished", 1.0, (), tmp_path)


def logged(stage: StageContents, *rows: dict[str, float]) -> StageContents:
    """Write metrics, and return the stage as it is read then."""
    lines = [json.dumps({"step": n, **row}) + "\n" for n, row in enumerate(rows, 1)]
    (stage.folder / "metrics.jsonl").write_text("".join(lines))
    return replace(stage)


def test_a_reward_with_most_of_the_spread_is_named(stage: StageContents) -> None:
    shares = [{"reward/liked_share": 0.94, "reward/right_share": 0.06}, {"reward/liked_share": 0.98}]
    found = logged(stage, *shares)
    assert dominant_reward(found) == ("liked", pytest.approx(0.96))
    assert "liked" in render(dominance_note(found)) and "96% of the spread" in render(dominance_note(found))


def test_nothing_is_said_where_no_reward_dominates(stage: StageContents) -> None:
    assert dominant_reward(logged(stage, {"reward/liked_share": 0.7, "reward/right_share": 0.3})) is None
    assert dominance_note(logged(stage, {"reward": 1.0})) == ""
