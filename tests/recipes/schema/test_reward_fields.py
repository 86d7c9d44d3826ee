"""The fields that shape a reward, as a recipe file gives them."""

from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.schema.source import read_recipe, read_source


def written(folder: Path, fields: str) -> Path:
    file = folder / "it.yaml"
    file.write_text(
        f"name: it\npolicy: {{model: tiny}}\nrewards:\n  a: {{kind: python, target: 'a.py:f', {fields}}}\nstages:\n"
        "- {id: w, kind: warm, data: d, steps: 1, batch: 2, learning_rate: 1.0e-4}\n"
    )
    return file


def test_every_field_that_shapes_a_reward_can_be_written_in_yaml(tmp_path: Path):
    fields = "weight: 2, clip: [-1, 0.5], normalise: group, gate: b, gate_above: 1, tasks: [t], time_limit: 5"
    reward = read_recipe(read_source(written(tmp_path, f"{fields}, options: {{day: '2024-01-01'}}"))).rewards["a"]
    assert (reward.clip, reward.tasks, reward.weight) == ([-1, 0.5], ["t"], 2)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("clip: [1, 0]", "clip is [1, 0], expected [low, high]"),
        ("clip: [.nan, 1]", "clip is [nan, 1], expected [low, high]"),
        ("clip: [0]", "rewards.a.clip: found a list, expected at least 2 items"),
        ("clip: [0, 1, 2]", "rewards.a.clip: found a list, expected at most 2 items"),
        ("time_limit: .inf", "rewards.a.time_limit: found inf, expected a finite number"),
        ("weight: .nan", "rewards.a.weight: found nan, expected a finite number"),
        ("weight: 1, weight: 2", 'found the key "weight" a second time'),
        ("options: {day: 2024-01-01}", "option day is a date, expected text"),
    ],
)
def test_a_field_that_cannot_be_is_told_with_its_line(tmp_path: Path, fields: str, words: str):
    with pytest.raises(UserError) as caught:
        read_recipe(read_source(written(tmp_path, fields)))
    assert words in str(caught.value)
    assert "it.yaml:4: " in str(caught.value)
