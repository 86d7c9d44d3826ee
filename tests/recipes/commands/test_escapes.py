"""Text of users, files and models does not reach the terminal as control characters, whatever the command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gemsmith.recipes.report.markup import render
from gemsmith.recipes.run.view import LineView

TITLE = "\x1b]0;owned\x07"
RECIPE = """\
name: small
policy: {model: tiny}
data:
  rows: {source: jsonl, path: rows.jsonl, prompt: "{question}", demonstration: "{answer}", answer: "{answer}"}
rewards:
  mine: {kind: python, target: "mine.py:score"}
stages:
  - {id: sft, kind: sft, data: rows, steps: 2, batch: 4, learning_rate: 1.0e-3}
"""


def ended(folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gemsmith", *arguments], cwd=folder, capture_output=True, timeout=120, check=False
    )
    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    row = {"question": f"What is 2 + 2? {TITLE}", "answer": f"4{TITLE}"}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row | {"n": n}) + "\n" for n in range(8)))
    (tmp_path / "mine.py").write_text("def score(completions, **columns):\n    return [1.0 for _ in completions]\n")
    (tmp_path / "small.yaml").write_text(RECIPE)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["reward", "try", "mine.py:score", "--completion", f"four {TITLE}"], 0),
        (["validate", "--gold", "small.yaml", "--set", "rewards.mine={kind: math}"], None),
        (["validate", "small.yaml", "--set", f"stages.sft.kind=s{TITLE}"], 2),
        (["validate", f"small{TITLE}.yaml"], 2),
        (["report", f"runs/{TITLE}"], 2),
    ],
)
def test_no_command_prints_a_control_character(folder: Path, arguments: list[str], code: int | None) -> None:
    found, printed = ended(folder, *arguments)
    assert code is None or found == code
    assert printed and "\x1b" not in printed and "\x07" not in printed
    assert "owned" in printed or code is None


def test_a_key_with_a_newline_is_one_line(folder: Path) -> None:
    (folder / "bad.yaml").write_text(RECIPE + '"a\\ngemsmith: all is well": 1\n')
    code, printed = ended(folder, "validate", "bad.yaml")
    (line,) = [line for line in printed.splitlines() if line.startswith("gemsmith:")]
    assert code == 2 and r"a\ngemsmith: all is well" in line


def test_progress_and_reports_are_visible_too(capsys: pytest.CaptureFixture[str]) -> None:
    view = LineView(sys.stdout)
    view.show_status(f"sft{TITLE}", "running", 0.0)
    view.say(f"completion {TITLE}")
    assert "\x1b" not in capsys.readouterr().out
    assert "\x1b" not in render(f"completion {TITLE}")
