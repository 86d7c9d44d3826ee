"""No evaluation prompt may be a training prompt; that is checked on the data itself, before the first stage."""

import json
from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.checks.disjoint import check_data
from gemsmith.recipes.pipeline.pipeline import Pipeline, open_recipe
from tests.messages import raises_facts

RECIPE = """\
name: rows
policy: {{model: tiny}}
data:
  train: {{source: jsonl, path: train.jsonl, answer: "{{answer}}", holdout: {train_holdout}}}
  test: {{source: jsonl, path: test.jsonl, answer: "{{answer}}", holdout: {test_holdout}}}
rewards: {{correct: {{kind: math}}}}
stages:
  - {{id: sft, kind: sft, data: train, steps: 1, batch: 1, learning_rate: 0.1}}
  - {{id: scores, kind: evaluate, policies: [sft], data: test, rewards: [correct]}}
"""


def pipeline(folder: Path, train: list[str], test: list[str], train_holdout: float, test_holdout: float) -> Pipeline:
    for name, prompts in (("train", train), ("test", test)):
        rows = "".join(json.dumps({"prompt": prompt, "answer": "1"}) + "\n" for prompt in prompts)
        (folder / f"{name}.jsonl").write_text(rows)
    path = folder / "rows.yaml"
    path.write_text(RECIPE.format(train_holdout=train_holdout, test_holdout=test_holdout))
    return open_recipe(str(path))


def questions(first: int, last: int, space: str = " ") -> list[str]:
    return [f"{number}{space}+ 1 =" for number in range(first, last)]


def test_prompts_that_are_nowhere_shared_pass(tmp_path: Path):
    made = pipeline(tmp_path, questions(0, 50), questions(50, 100), 0, 0.9)
    check_data(made, made.nodes)


def test_one_section_for_both_passes_as_its_sides_are_disjoint(tmp_path: Path):
    made = pipeline(tmp_path, questions(0, 200), questions(0, 200), 0.3, 0.3)
    check_data(made, made.nodes)


def test_a_shared_prompt_is_an_error_that_shows_one(tmp_path: Path):
    made = pipeline(tmp_path, questions(0, 50), questions(0, 50, space="  "), 0, 0.9)
    with pytest.raises(
        UserError, match=r'held-out prompts of data\.test are training prompts of stage sft.*"\d+ \+ 1 ="'
    ):
        check_data(made, made.nodes)


def test_an_empty_side_is_an_error(tmp_path: Path):
    made = pipeline(tmp_path, questions(0, 50), questions(50, 100), 0, 0)
    with raises_facts(UserError, "stage scores", "data.test", "held-out", "holdout"):
        check_data(made, made.nodes)


def test_nothing_is_loaded_when_no_waiting_stage_reads_data(tmp_path: Path):
    made = pipeline(tmp_path, questions(0, 50), questions(50, 100), 0, 0.9)
    (tmp_path / "train.jsonl").unlink()
    check_data(made, [])  # loading the missing file would raise
