"""A run's folder belongs to one recipe: its edits go on as before, and another recipe is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from counting_stage import pipeline_of

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.recipes.run.record import locked, read_run
from gemsmith.recipes.run.runner import run_pipeline
from tests.messages import raises_facts

TWO: dict[str, dict[str, Any]] = {"a": {}, "b": {"from": "a", "steps": 4}}


def recipe(tmp_path: Path, stages: dict[str, Any], name: str = "mine"):
    return dataclasses.replace(pipeline_of(stages, tmp_path), name=name, document=f"name: {name}\n")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run_pipeline(recipe(tmp_path, TWO), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("stages", "name"),
    [
        ({"a": {"steps": 5}, "b": {"from": "a", "steps": 4}}, "mine"),  # a changed setting
        ({"a": {"steps": 5}}, "mine"),  # and a stage removed
        ({"c": {"steps": 2}, "b": {"from": "c"}}, "mine"),  # a renamed stage
        (TWO, "renamed"),
        ({**TWO, "c": {"from": "b"}}, "renamed"),  # and extended
    ],
)
def test_an_edited_recipe_continues_its_run(tmp_path: Path, run: Path, stages: dict[str, Any], name: str):
    run_pipeline(recipe(tmp_path, stages, name), run)
    assert read_run(run)["name"] == name


@pytest.mark.parametrize(
    ("stages", "name"),
    [
        ({"other": {}}, "other"),
        ({"a": {"steps": 5}}, "other"),  # the ids in common, not the settings
        ({"a": {}, "b": {"from": "a", "steps": 5}}, "other"),  # a copy with a changed end
        ({"other": {}}, "mine"),  # the name in common, and nothing else
    ],
)
def test_another_recipe_is_refused_and_changes_nothing(tmp_path: Path, run: Path, stages: dict[str, Any], name: str):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with raises_facts(UserError, str(run), "mine", name, "a, b", "--out", "--fresh"):
        run_pipeline(recipe(tmp_path, stages, name), run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    run_pipeline(recipe(tmp_path, stages, name), run, fresh=True)
    assert [stage["id"] for stage in read_run(run)["stages"]] == list(stages)
    assert (run / "recipe.yaml").read_text() == f"name: {name}\n"
    run_pipeline(recipe(tmp_path, stages, name), run)


def test_a_folder_in_which_nothing_was_begun_belongs_to_no_recipe(tmp_path: Path):
    run = tmp_path / "run"
    with locked(run), pytest.raises(UserError):
        run_pipeline(recipe(tmp_path, {"x": {"fault": "user", "at": 1}}, "other"), run / "elsewhere", only=["y"])
    with pytest.raises(RunError):
        run_pipeline(recipe(tmp_path, {"x": {"fault": "run", "at": 1}}, "other"), run)
    with raises_facts(UserError, "other", "mine"):  # a stage that failed may continue
        run_pipeline(recipe(tmp_path, TWO), run)
