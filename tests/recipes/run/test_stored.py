"""Runs of an older version, kept here as their records alone: what they finished is not run again.

They were made when the Python files of shipped recipes lay beside these. `sets.json` holds the overrides.
"""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gemsmith.recipes.commands.cli import app
from gemsmith.recipes.pipeline.pipeline import open_recipe
from gemsmith.recipes.run.record import read_run, read_stage

STORED = Path(__file__).parent / "stored"
STAGES = {
    "quickstart": ["sft", "teacher", "it", "warm", "aligned", "scores", "release"],
    "code-one-liners": ["sft", "aligned", "scores"],
    "own": ["sft", "scores"],  # of a user whose functions lie in a folder beside the recipe
}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_an_older_version_finished_is_finished(tmp_path: Path, name: str):
    run = tmp_path / name
    shutil.copytree(STORED / name, run)
    recipe = str(run / "own.yaml") if name == "own" else name
    sets = json.loads((run / "sets.json").read_text())

    pipeline = open_recipe(recipe, sets)
    assert [stage["id"] for stage in read_run(run)["stages"]] == [node.id for node in pipeline.nodes] == STAGES[name]
    for node in pipeline.nodes:
        folder = run / pipeline.folder(node)
        assert read_stage(folder).status == "finished"
        assert json.loads((folder / "stage.json").read_text())["identity"] == pipeline.identities[node.id]

    planned = CliRunner().invoke(app, ["plan", recipe, "--out", str(run), *(f"--set={text}" for text in sets)])
    assert planned.exit_code == 0, planned.output
    assert planned.output.count(" finished ") == len(STAGES[name])
    assert "Nothing is left to run." in planned.output


def test_a_stage_of_an_older_version_with_another_setting_is_to_run(tmp_path: Path):
    run = tmp_path / "own"
    shutil.copytree(STORED / "own", run)
    pipeline = open_recipe(str(run / "own.yaml"), ["stages.sft.steps=2"])
    assert [read_stage(run / pipeline.folder(node)).status for node in pipeline.nodes] == ["to run", "to run"]
