"""The fields that shape a reward, as a recipe file gives them."""

from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.schema.source import read_recipe, read_source
from tests.messages import raises_facts


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
    ("fields", "facts"),
    [
        ("clip: [1, 0]", ("clip", "[1, 0]", "low < high")),
        ("clip: [.nan, 1]", ("clip", "[nan, 1]", "[low, high]")),
        ("clip: [0]", ("rewards.a.clip", "least 2 items")),
        ("clip: [0, 1, 2]", ("rewards.a.clip", "most 2 items")),
        ("time_limit: .inf", ("rewards.a.time_limit", "inf", "finite")),
        ("weight: .nan", ("rewards.a.weight", "nan", "finite")),
        ("weight: 1, weight: 2", ('"weight"', "once")),
        ("options: {day: 2024-01-01}", ("option", "day", "date")),
    ],
)
def test_a_field_that_cannot_be_is_told_with_its_line(tmp_path: Path, fields: str, facts: tuple[str, ...]):
    with raises_facts(UserError, "it.yaml:4", *facts):
        read_recipe(read_source(written(tmp_path, fields)))
