"""`gemsmith reward try` as a process: scores, what a function prints, and errors as in a run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.messages import assert_facts
from tests.recipes.commands.test_cli import HEAVY

SOURCE = """
def brevity(completions, length=100, **columns):
    print("columns:", {name: values[0] for name, values in sorted(columns.items())})
    return [1 - len(c) / length if c else None for c in completions]


class Asked:
    def __init__(self, word):
        self.word = word

    async def __call__(self, prompts, completions):
        return [float(self.word in prompt) for prompt in prompts]


def gone(completions):
    raise KeyError("gone")


def late(completions):
    while True:
        pass
"""
RECIPE = """
name: tried
policy: {model: tiny}
data: {sums: {source: reasoning_gym, task: chain_sum, size: 100}}
rewards:
  correct: {kind: math}
  brief: {kind: python, target: "mine.py:brevity", options: {length: 10}}
  liked: {kind: reward_model, from: warm}
stages:
  - {id: a, kind: sft, data: sums, steps: 1, batch: 1, learning_rate: 0.1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.py").write_text(SOURCE)
    (tmp_path / "recipes" / "tried.yaml").write_text(RECIPE)
    return tmp_path


def tried(folder: Path, *arguments: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *python, "-m", "gemsmith", "reward", "try", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60, check=False, env=os.environ)


def scores(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    assert done.returncode == 0, done.stderr
    *lines, timing = done.stdout.splitlines()
    assert re.fullmatch(r"opened in \d+\.\d\d s, called in \d+\.\d{3} s", timing)
    return [line.strip().split("  ", 1) for line in lines]


def test_each_completion_is_shown_with_its_score_and_what_is_printed_beside_them(folder: Path):
    done = tried(folder, "mine.py:brevity", "--prompt", "2 + 2?", "--completion", "It is 4.", "--completion", "")
    assert scores(done) == [["0.92", "'It is 4.'"], ["does not apply", "''"]]  # 1 - 8 / 100
    assert done.stderr == "columns: {'finished': True, 'prompts': '2 + 2?', 'system': None, 'task': None}\n"


def test_options_and_columns_are_yaml(folder: Path):
    given = ["--option", "length=16", "--column", "answer=4", "--column", "tags=[a, b]", "--column", "finished=false"]
    done = tried(folder, "mine.py:brevity", "--completion", "It is 4.", *given)
    assert scores(done) == [["0.5", "'It is 4.'"]]  # 1 - 8 / 16
    for word in ("'answer': 4", "'tags': ['a', 'b']", "'finished': False"):
        assert word in done.stderr


def test_a_class_is_tried_like_a_function(folder: Path):
    done = tried(folder, "mine.py:Asked", "--prompt", "why?", "--completion", "because", "--option", "word=why")
    assert scores(done) == [["1", "'because'"]]


def test_rows_come_with_their_own_prompts_and_columns(folder: Path):
    rows = [{"prompt": "p", "completion": "12345", "level": 3}, {"prompt": "q", "completion": "1234567890"}]
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    done = tried(folder, "mine.py:brevity", "--rows", "rows.jsonl", "--option", "length=10")
    assert scores(done) == [["0.5", "'12345'"], ["0", "'1234567890'"]]
    assert "'level': 3" in done.stderr


def test_a_reward_of_a_recipe_has_the_recipes_folder_and_options(folder: Path):
    (folder / "mine.py").unlink()
    recipe = "recipes/tried.yaml"
    assert scores(tried(folder, f"{recipe}:brief", "--completion", "12345")) == [["0.5", "'12345'"]]
    given = ["--completion", "12345", "--option", "length=50"]
    assert scores(tried(folder, f"{recipe}:brief", *given)) == [["0.9", "'12345'"]]
    done = tried(
        folder, f"{recipe}:correct", "--completion", "It is \\boxed{4}.", "--completion", "5", "--column", "answer=4"
    )
    assert [score for score, _ in scores(done)] == ["1", "0"]


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["mine.py:brevity"], ("--prompt", "--completion", "--rows")),
        (["mine.py:brevity", "--completion", "x", "--rows", "rows.jsonl"], ("--prompt", "--completion", "--rows")),
        (["mine.py:brevity", "--rows", "rows.jsonl"], ("--rows rows.jsonl", "No such file")),
        (["mine.py:brevity", "--rows", "mine.py"], ("mine.py:2", "column 1", "JSON")),
        (["mine.py:brevty", "--completion", "x"], ("function brevty", '"brevity"')),
        (["yours.py:brevity", "--completion", "x"], ("yours.py",)),
        (
            ["brevity", "--completion", "x"],
            ("brevity", "gemsmith.rewards"),
        ),
        (["mine.py:brevity", "--completion", "x", "--option", "lenght=3"], ("lenght", '"length"')),
        (["mine.py:brevity", "--completion", "x", "--option", "length"], ("--option length", "name=value")),
        (["mine.py:brevity", "--completion", "x", "--column", "a=["], ("--column a=[", "YAML")),
        (["mine.py:Asked", "--completion", "x"], ("Asked(word)", "option 'word'")),
        (["mine.py:gone", "--completion", "x"], ("sample 0", "prompt ''", "completion 'x'", "KeyError")),
        (["mine.py:late", "--completion", "x", "--time-limit", "0.5"], ("0.5 s",)),
        (
            ["recipes/tried.yaml:breif", "--completion", "x"],
            ("recipes/tried.yaml", "breif", "correct", "liked", '"brief"'),
        ),
        (
            ["recipes/tired.yaml:brief", "--completion", "x"],
            ("recipes/tired.yaml", "no such file", "recipe file"),
        ),
        (["recipes/tried.yaml:liked", "--completion", "x"], ("recipes/tried.yaml:liked", "stage warm")),
        (
            ["recipes/tried.yaml:correct", "--completion", "x", "--option", "a=1"],
            ("recipes/tried.yaml:correct", "kind math", "--option", "kind python"),
        ),
        (["recipes/tried.yaml:correct", "--completion", "x"], ("column 'answer'",)),
    ],
)
def test_the_users_mistakes_end_with_2_and_a_sentence(folder: Path, arguments: list[str], facts: tuple[str, ...]):
    done = tried(folder, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert_facts(done.stderr, *facts)
    assert "Traceback" not in done.stderr


def test_it_imports_nothing_heavy(folder: Path):
    done = tried(folder, "mine.py:brevity", "--completion", "x", python=("-X", "importtime"))
    lines = [line for line in done.stderr.splitlines() if "import time" in line]
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in lines}
    assert "gemsmith" in imported
    assert imported & HEAVY == set()
