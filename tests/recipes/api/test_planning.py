"""`gemsmith.validate` and `gemsmith.plan`: recipes as files and dicts, every fault named, and the plan as objects."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import gemsmith
from gemsmith.recipes.commands.cli import app
from tests.messages import assert_facts, raises_facts
from tests.recipes.api.conftest import Example

SFT = {"id": "sft", "kind": "sft", "data": "sums", "steps": 3, "batch": 4, "learning_rate": 1e-3}
RECIPE: dict[str, Any] = {
    "name": "sums",
    "policy": {"model": "tiny"},
    "data": {"sums": {"source": "reasoning_gym", "task": "chain_sum", "size": 40, "synthesise": {"right": 0.5}}},
    "stages": [SFT],
}
TEXT = """name: sums
policy: {model: tiny}
data:
  sums: {source: reasoning_gym, task: chain_sum, size: 40, synthesise: {right: 0.5}}
stages:
  - {id: sft, kind: sft, data: sums, steps: 3, batch: 4, learning_rate: 1.0e-3}
"""


def faults(recipe: Any, **options: Any) -> list[str]:
    with pytest.raises(gemsmith.UserError) as caught:
        gemsmith.validate(recipe, **options)
    return str(caught.value).splitlines()


def test_a_path_a_name_and_a_dict_are_recipes(tmp_path: Path):
    path = tmp_path / "sums.yaml"
    path.write_text(TEXT)
    assert gemsmith.validate(path) == gemsmith.validate(str(path)) == gemsmith.validate(RECIPE) == ["sft"]
    assert gemsmith.validate("quickstart")[0] == "sft"


def test_a_dict_is_the_same_recipe_as_its_file(tmp_path: Path, example: Example):
    path = tmp_path / "sums.yaml"
    path.write_text(TEXT)
    from_file, from_dict = (
        gemsmith.plan(path, tmp_path, set={"seed": 3}),
        gemsmith.plan(RECIPE, tmp_path, set={"seed": 3}),
    )
    assert from_file == from_dict


def test_values_of_python_are_taken_as_yaml_would_have_them():
    recipe = {**RECIPE, "stages": ({**SFT, "steps": np.int64(3), "learning_rate": np.float64(1e-3)},)}
    before = copy.deepcopy(recipe)
    assert gemsmith.validate(recipe, set={"policy.model": Path("tiny"), "seed": np.int32(1)}) == ["sft"]
    assert recipe == before


def test_relative_paths_of_a_dict_are_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = {"source": "jsonl", "path": "rows.jsonl", "prompt": "{question}", "answer": "{answer}"}
    recipe = {**RECIPE, "data": {"sums": rows}}
    (tmp_path / "rows.jsonl").write_text('{"question": "1 + 1", "answer": "2"}\n')
    assert_facts(faults(recipe)[0], "recipe: data.sums.path", "rows.jsonl", Path.cwd())
    monkeypatch.chdir(tmp_path)
    assert gemsmith.validate(recipe) == ["sft"]


def test_all_faults_of_a_dict_are_named_by_their_fields():
    recipe = {**RECIPE, "stages": [{**SFT, "steps": 0, "stepz": 3}]}
    steps, unknown = faults(recipe)
    assert_facts(steps, "recipe: stages.sft.steps", "found 0", 1)
    assert_facts(unknown, "recipe: stages.sft.stepz", '"stepz"', "micro_batch, learning_rate", '"steps"')
    assert_facts(faults({**RECIPE, "data": {}})[0], "recipe: stages.sft.data", '"sums"')


def test_faults_of_a_file_have_their_line(tmp_path: Path):
    path = tmp_path / "sums.yaml"
    path.write_text(TEXT.replace("steps: 3", "steps: 0"))
    (fault,) = faults(path)
    assert_facts(fault, f"{path}:6: stages.sft.steps", "found 0", 1)


@pytest.mark.parametrize(
    ("recipe", "values", "facts"),
    [
        (
            RECIPE,
            {"stages.sft.steps": "10"},
            ("set={'stages.sft.steps': '10'}: stages.sft.steps", '"10"', "integer"),
        ),
        (RECIPE, {"stages.stf.steps": 1}, ("stages", "stf", '"sft"')),
        (RECIPE, {"": 1}, ("dotted name", "stages.sft.steps")),
        (RECIPE, {"policy.model": object()}, ("policy.model", "type object", "YAML")),
        ({**RECIPE, "name": len}, {}, ("recipe", "function len at name", '"my_file.py:len"')),
        ({**RECIPE, "data": {3: {}}}, {}, ("recipe", "key 3 at data", "text")),
        ("quickstrat", {}, ("quickstrat", '"quickstart"')),
        (3, {}, ("recipe", "type int", "path", "dict")),
    ],
)
def test_what_cannot_be_is_a_user_error(recipe: Any, values: dict[str, Any], facts: tuple[str, ...]):
    assert_facts(faults(recipe, set=values)[0], *facts)


def test_a_plan_is_a_line_for_each_stage(example: Example):
    steps = {"stages.sft.steps": 10}
    plan = gemsmith.plan(example.recipe, example.run.folder, set=steps)
    assert [(line.id, line.kind, line.inputs, line.status) for line in plan] == [
        ("sft", "sft", (), "finished"),
        ("aligned", "reinforce", ("sft",), "finished"),
        ("scores", "evaluate", ("sft",), "finished"),
    ]
    assert plan["sft"].measured and plan["sft"].seconds == example.run.stage("sft").seconds
    assert plan["sft"].parameters == example.run.policy("sft").model.num_parameters()
    assert (plan.seconds, len(plan)) == (0, 3)
    changed = gemsmith.plan(example.recipe, example.run.folder, set={**steps, "stages.aligned.steps": 4})
    assert [line.status for line in changed] == ["finished", "to run", "finished"]
    assert changed.seconds == changed["aligned"].seconds


def test_a_plan_prints_what_the_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    printed = CliRunner().invoke(app, ["plan", "quickstart"]).output
    plan = gemsmith.plan("quickstart")
    assert [line.rstrip() for line in str(plan).splitlines()] == [line.rstrip() for line in printed.splitlines()]
    assert_facts(plan, "7 of 7 stages")


def test_an_unknown_stage_of_a_plan_is_named_with_those_that_are_there():
    with raises_facts(gemsmith.UserError, '"stf"', "plan", '"sft"'):
        gemsmith.plan(RECIPE)["stf"]
