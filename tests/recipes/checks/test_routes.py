"""Rewards and rows whose tasks do not match are reported before training."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.curation.load import held_out, load_data
from gemsmith.recipes.checks.disjoint import check_data
from gemsmith.recipes.checks.routes import check_rows
from gemsmith.recipes.pipeline.pipeline import open_recipe
from tests.messages import assert_facts, raises_facts

RECIPE = """\
name: routed
policy: {model: tiny}
data:
  rows: DATA
rewards:
  sums: {kind: math, tasks: [SUMS]}
  words: {kind: length, high: 3, slack: 2, tasks: [words]}
stages:
  - {id: it, kind: bond, data: rows, rewards: [sums, words], steps: 1, batch: 1, learning_rate: 0.1}
  - {id: scores, kind: evaluate, policies: [it], data: rows, rewards: [sums, words]}
"""
JSONL = '{source: jsonl, path: rows.jsonl, answer: "{answer}", task: "TASK", holdout: 0.3}'
GYM = "{source: reasoning_gym, task: chain_sum, size: 20}"


def recipe(folder: Path, data: str, sums: str, tasks: tuple[str, ...] = ()) -> str:
    rows = [{"prompt": f"{task} {n}", "answer": "1", "kind": task} for task in tasks for n in range(10)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "routed.yaml"
    path.write_text(RECIPE.replace("DATA", data).replace("SUMS", sums))
    return str(path)


def by_column(folder: Path, sums: str, *tasks: str) -> str:
    return recipe(folder, JSONL.replace("TASK", "{kind}"), sums, tasks)


def notes(path: str) -> list[str]:
    made = open_recipe(path)
    configs = [node.config for node in made.nodes]
    return check_rows(
        configs, made.rewards, lambda name: load_data(made.data[name], name=name, seed=made.seed, root=made.root)
    )


@pytest.mark.parametrize("data", [GYM, JSONL.replace("TASK", "chain_sum")])
def test_a_section_that_tells_its_task_is_compared_when_the_recipe_is_read(tmp_path: Path, data: str):
    path = recipe(tmp_path, data, "chain_sums")
    with pytest.raises(UserError) as caught:
        open_recipe(path)
    misspelt, dead, learnt, evaluated = str(caught.value).splitlines()
    assert misspelt == (
        f'{path}:6: rewards.sums.tasks.0: found "chain_sums", which no row of data.rows has, expected chain_sum, '
        'did you mean "chain_sum"?'
    )
    assert dead == (
        f'{path}:7: rewards.words.tasks.0: found "words", which no row of data.rows has, expected chain_sum'
    )
    assert f'{path}:9: stages.it.rewards: found no reward for data.rows, whose rows are of task "chain_sum": ' in learnt
    assert "sums scores chain_sums; words scores words" in learnt
    assert f"{path}:10: stages.scores.rewards: " in evaluated


def test_rows_without_a_task_need_a_reward_without_tasks(tmp_path: Path):
    with raises_facts(UserError, "stages.it.rewards", "data.rows", "no task", "sums scores sums"):
        open_recipe(recipe(tmp_path, JSONL.replace('task: "TASK", ', ""), "sums"))


def test_rows_that_say_their_own_task_are_compared_when_they_are_loaded(tmp_path: Path):
    assert notes(by_column(tmp_path, "sums", "sums", "words")) == []
    with raises_facts(UserError, "it", "data.rows", '"code"', "no reward", "sums"):
        notes(by_column(tmp_path, "sums", "sums", "words", "code"))
    with raises_facts(UserError, "rewards.sums.tasks", '"sumz"', "data.rows", "words", '"sums"'):
        notes(by_column(tmp_path, "sumz", "sums", "words"))


def test_a_stage_is_asked_for_the_rows_of_its_own_side_alone(tmp_path: Path):
    path = Path(by_column(tmp_path, "sums", "sums", "words"))
    prompt = next(text for text in map(str, range(1000)) if held_out(text, 0, 0.3))
    with (tmp_path / "rows.jsonl").open("a") as rows:
        rows.write(json.dumps({"prompt": prompt, "answer": "1", "kind": "code"}) + "\n")
    with raises_facts(UserError, "stage scores", "data.rows", '"code"'):  # and not stage it
        notes(str(path))
    path.write_text(path.read_text().replace("kind: evaluate", "kind: evaluate, prompts: 1"))
    assert notes(str(path)) == []  # that row may not be among those that are asked


def test_a_task_that_no_row_happens_to_have_is_a_note(tmp_path: Path):
    (note,) = notes(by_column(tmp_path, "sums, geometry", "sums", "words"))
    assert_facts(note, "rewards.sums.tasks", '"geometry"', "data.rows", "sums", "words")


def test_rows_of_a_stage_without_routed_rewards_are_not_loaded(tmp_path: Path):
    path = Path(by_column(tmp_path, "sums", "sums"))
    path.write_text(path.read_text().replace(", tasks: [sums]", "").replace(", tasks: [words]", ""))
    made = open_recipe(str(path))
    assert check_rows([node.config for node in made.nodes], made.rewards, {}.__getitem__) == []


def test_a_run_says_so_before_its_first_stage(tmp_path: Path):
    made = open_recipe(by_column(tmp_path, "sums", "sums", "words", "code"))
    with raises_facts(UserError, "data.rows", '"code"', "no reward"):
        check_data(made, made.nodes)
    check_data(made, [])


def test_the_gold_check_says_so_with_exit_code_2(tmp_path: Path):
    command = [sys.executable, "-m", "gemsmith", "validate", "--gold", by_column(tmp_path, "sums", "sums", "code")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert_facts(done.stderr, "data.rows", '"code"', "no reward")


@pytest.mark.parametrize(
    "stage",
    [
        "{id: it, kind: distill, teacher: {model: tiny}, on_policy: 1, data: rows, rewards: [words], steps: 1, "
        "batch: 1, learning_rate: 0.1}",
        "{id: it, kind: generate, data: rows, rewards: [words]}",
    ],
)
def test_rewards_that_choose_or_guide_completions_need_one_for_each_row(tmp_path: Path, stage: str):
    path = recipe(tmp_path, GYM, "chain_sum")
    text = Path(path).read_text()
    Path(path).write_text(text[: text.index("  - {id: it")] + f"  - {stage}\n")
    with raises_facts(UserError, "stages.it.rewards", "data.rows", '"chain_sum"'):
        open_recipe(path)
    plain = Path(path).read_text().replace("tasks: [words]", "gate: sums")
    Path(path).write_text(plain)
    if "distill" in stage:
        with pytest.raises(UserError, match=r"rewards\.words\.gate"):
            open_recipe(path)
    else:
        open_recipe(path)  # a gate has no effect on what is kept
