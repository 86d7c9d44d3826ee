"""`gemsmith validate --gold`: every true answer of a recipe's data, by the rewards that judge with it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
STAGE = "{id: a, kind: bond, data: rows, rewards: [REWARDS], steps: 1, batch: 1, learning_rate: 0.1}"
TESTS = {"function": "f", "calls": [[[1], 2], [[2], 4]]}


def validate(
    folder: Path, rows: list[dict[str, Any]], data: str, rewards: str, used: str = "it"
) -> tuple[int, str, str]:
    """Exit code, output and errors of the check on a recipe with one data section."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = folder / "gold.yaml"
    recipe.write_text(
        f"name: gold\npolicy: {{model: tiny}}\ndata: {{rows: {{source: jsonl, path: rows.jsonl, {data}}}}}\n"
        f"rewards: {{{rewards}}}\nstages:\n  - {STAGE.replace('REWARDS', used)}\n"
    )
    command = [sys.executable, "-m", "gemsmith", "validate", "--gold", str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_right_mathematics_is_good(tmp_path: Path):
    answers = ["72", "#### 72", r"\frac{1}{2}", "x^2 + 1", "-1,080.50"]
    rows = [{"prompt": f"question {answer}", "answer": answer} for answer in answers]
    code, out, _ = validate(tmp_path, rows, 'answer: "{answer}"', "it: {kind: math}")
    assert code == 0
    assert "data rows by reward it: 5 gold answers checked, 0 not right" in out


def test_a_gold_answer_that_its_own_verifier_refuses_is_named(tmp_path: Path):
    answers = {"one": "1", "two": "<think>72", "three": None}
    rows = [{"prompt": prompt, "answer": answer} for prompt, answer in answers.items()]
    code, out, errors = validate(tmp_path, rows, 'answer: "{answer}"', "it: {kind: math}")
    assert code == 1
    (line,) = [line for line in out.splitlines() if "rows.jsonl:2" in line]
    assert "unparsable: no answer found" in line and "'two'" in line
    assert "2 gold answers checked, 1 not right, 1 prompts without one" in out
    assert "1 of 2 gold answers are not right" in errors


def test_reference_programs_are_run_by_their_tests(tmp_path: Path):
    good, bad = "def f(x): return 2 * x", "def f(x): return x * x"
    rows = [
        {"prompt": "right", "answer": good, "tests": TESTS},
        {"prompt": "wrong", "answer": bad, "tests": TESTS},
        {"prompt": "bad tests", "answer": good, "tests": {"calls": 3}},
        {"prompt": "no tests", "answer": good, "tests": None},
    ]
    code, out, _ = validate(tmp_path, rows, 'answer: "{answer}", columns: [tests]', "it: {kind: code}")
    assert code == 1
    assert "rows.jsonl:2: wrong: case 1 of 2" in out
    assert "rows.jsonl:3: unparsable: its tests cannot be read: `calls` must be a list" in out
    assert "3 gold answers checked, 2 not right, 1 prompts without one" in out


def test_a_records_own_solution_is_its_gold_answer(tmp_path: Path):
    rows = [{"text": "double", "code": "def f(x): return 2 * x", "test_list": ["assert f(2) == 4"]}]
    data = 'prompt: "{text}", columns: [code, test_list]'
    code, out, _ = validate(tmp_path, rows, data, "it: {kind: code, format: mbpp}")
    assert (code, "1 gold answers checked, 0 not right" in out) == (0, True)


def test_without_a_ground_truth_there_is_nothing_to_check(tmp_path: Path):
    (tmp_path / "mine.py").write_text("def f(prompts, completions, **columns): return [0.0] * len(prompts)\n")
    rows = [{"prompt": "one", "answer": "1"}]
    code, _, errors = validate(tmp_path, rows, 'answer: "{answer}"', 'it: {kind: python, target: "mine.py:f"}')
    assert code == 2 and "no gold answers to check" in errors
    code, _, errors = validate(tmp_path, rows, 'prompt: "{prompt}"', "it: {kind: math}")
    assert code == 2 and "map `answer`" in errors


def test_every_reward_on_every_section_is_checked_once(tmp_path: Path):
    rows = [{"prompt": "one", "answer": "1"}]
    rewards = "it: {kind: math}, other: {kind: math, weight: 2.0}, unused: {kind: math}"
    code, out, _ = validate(tmp_path, rows, 'answer: "{answer}"', rewards, used="it, other")
    assert code == 0
    assert out.count("1 gold answers checked") == 2


def test_the_shipped_recipes_that_need_no_download_have_right_gold_answers():
    for recipe in ("quickstart", "code-one-liners"):
        command = [sys.executable, "-m", "gemsmith", "validate", "--gold", recipe]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
