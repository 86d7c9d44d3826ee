"""`gemsmith verify`, as a process: what it writes where, its exit codes, and what it imports."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.messages import assert_facts

HEAVY = {"torch", "transformers", "datasets", "numpy", "trl", "matplotlib", "reasoning_gym"}
DATA = Path(__file__).parents[3].parent / "shared" / "data"
MATHS = [
    {"completion": "The answer is 72.", "answer": "#### 72"},
    {"completion": r"\boxed{0.5}", "answer": r"\frac{1}{2}"},
    {"completion": "7", "answer": 8},
    {"completion": "who knows", "answer": "8"},
]
DOUBLED = "def check(g): assert g(2) == 4"
IDENTITY = "```python\ndef f(x):\n    return x\n```"
CODE = [
    {"completion": "    return 2 * x\n", "prompt": "def f(x):\n", "entry_point": "f", "test": DOUBLED},
    {"completion": IDENTITY, "text": "...", "test_list": ["assert f(1) == 1", "assert f(2) == 3"]},
    {"completion": "print(2 * int(input()))", "input_output": {"inputs": ["2"], "outputs": ["4"]}},
    {"completion": "```python\nprint(", "tests": {"stdio": [["", ""]]}},
]


def rows(path: Path, given: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in given))
    return path


def gemsmith(*arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gemsmith", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=120, check=False)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_mathematics_is_graded_row_by_row_in_order(tmp_path: Path):
    done = gemsmith("verify", "math", rows(tmp_path / "rows.jsonl", MATHS))
    assert done.returncode == 0, done.stderr
    found = lines(done.stdout)
    assert [(row["score"], row["status"]) for row in found] == [
        (1.0, "right"),
        (1.0, "right"),
        (0.0, "wrong"),
        (0.0, "unparsable"),
    ]
    assert [row["answer"] for row in found] == ["72", "0.5", "7", None]
    assert all(isinstance(row["seconds"], float) and row["reason"] for row in found)
    assert "4 rows in " in done.stderr and "2 right, 1 wrong, 1 unparsable" in done.stderr


def test_code_is_graded_by_the_fields_of_published_data_sets(tmp_path: Path):
    done = gemsmith("verify", "code", rows(tmp_path / "rows.jsonl", CODE), "--workers", 1)
    assert done.returncode == 0, done.stderr
    found = lines(done.stdout)
    assert [(row["score"], row["status"]) for row in found] == [
        (1.0, "right"),
        (0.0, "wrong"),
        (1.0, "right"),
        (0.0, "unparsable"),
    ]
    assert [row.get("detail") for row in found] == ["pass", "fail", "pass", None]
    assert [row.get("cases") for row in found] == [[True], [True, False], [True], None]
    assert found[0]["answer"] == "def f(x):\n    return 2 * x\n"


def test_verdicts_go_to_a_file_and_rows_may_come_from_standard_input(tmp_path: Path):
    out = tmp_path / "verdicts.jsonl"
    text = "\n" + "".join(json.dumps(row) + "\n\n" for row in MATHS)
    done = gemsmith("verify", "math", "-", "--out", out, stdin=text)
    assert (done.returncode, done.stdout) == (0, "")
    assert [row["score"] for row in lines(out.read_text())] == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("kind", "bad", "facts"),
    [
        ("math", "{", ("JSON",)),
        ("math", "[1]", ("JSON array",)),
        ("math", {"completion": 3, "answer": "3"}, ("`completion`", "text", "found 3")),
        ("math", {"answer": "3"}, ("`completion`", "text", "nothing", "fields answer")),
        ("math", {"completion": "3"}, ("`answer`", "answer")),
        ("code", {"completion": "x", "answer": "3"}, ("HumanEval", "prompt, test, entry_point")),
        ("code", {"completion": "x", "test_list": "assert f(1)"}, ("`test_list`", "list")),
        ("code", {"completion": "x", "tests": {"script": "assert 1"}}, ("`script`", "--allow-forgeable")),
    ],
)
def test_a_bad_row_is_named_by_its_line_and_nothing_before_it_is_lost(
    tmp_path: Path, kind: str, bad: Any, facts: tuple[str, ...]
):
    good = {"math": MATHS, "code": CODE}[kind]
    path = rows(tmp_path / "rows.jsonl", [*good, bad, *good])
    done = gemsmith("verify", kind, path)
    assert done.returncode == 2
    assert len(lines(done.stdout)) == len(good)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"gemsmith: {path}:{len(good) + 1}")
    assert_facts(last, *facts)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["math", "absent.jsonl"], "absent.jsonl: found no such file"),
        (["code", "."], "found a folder"),
        (["math", "ROWS", "--out", "ROWS"], "is the input file"),
        (["math", "ROWS", "--out", "no/such/folder"], "cannot be written"),
        (["math", "ROWS", "--workers", "0"], "--workers"),
        (["code", "ROWS", "--backend", "docker"], "docker"),
    ],
)
def test_a_faulty_command_line_ends_with_2(tmp_path: Path, arguments: list[str], words: str):
    path = rows(tmp_path / "rows.jsonl", MATHS)
    before = path.read_text()
    done = gemsmith("verify", *(str(path) if word == "ROWS" else word for word in arguments))
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr
    assert path.read_text() == before


def test_a_sandbox_that_cannot_be_reached_gives_no_score(tmp_path: Path):
    done = gemsmith(
        "verify", "code", rows(tmp_path / "rows.jsonl", CODE), "--backend", "http", "--url", "http://127.0.0.1:9"
    )
    assert done.returncode == 1
    found = lines(done.stdout)
    assert [row["status"] for row in found] == ["infrastructure_fault"] * 3 + ["unparsable"]
    assert [row["score"] for row in found] == [None, None, None, 0.0]
    assert "3 of 4 rows could not be verified" in done.stderr


def test_an_empty_file_is_no_error(tmp_path: Path):
    done = gemsmith("verify", "math", rows(tmp_path / "rows.jsonl", []))
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing to verify" in done.stderr


def test_a_verdict_is_written_before_the_next_row_is_there(tmp_path: Path):
    """Rows that come slowly are answered as they come."""
    command = [sys.executable, "-m", "gemsmith", "verify", "math", "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as run:
        assert run.stdin is not None and run.stdout is not None
        for row in MATHS[:2]:
            run.stdin.write(json.dumps(row) + "\n")
            run.stdin.flush()
            assert json.loads(run.stdout.readline())["score"] == 1.0
        run.stdin.close()


@pytest.mark.parametrize(("kind", "given"), [("math", MATHS), ("code", CODE)])
def test_verifying_imports_nothing_heavy(tmp_path: Path, kind: str, given: list[Any]):
    command = [sys.executable, "-X", "importtime", "-m", "gemsmith", "verify", kind, str(rows(tmp_path / "r", given))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    named = (line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time" in line)
    imported = {name.split(".")[0] for name in named}
    assert "gemsmith" in imported
    assert imported & HEAVY == set()


@pytest.mark.skipif(not (DATA / "humaneval").is_dir(), reason="shared/data/humaneval is not on this machine")
def test_a_file_of_humaneval_answers_is_graded(tmp_path: Path):
    given = [json.loads(line) for line in (DATA / "humaneval" / "HumanEval.jsonl").open()]
    for row in given:
        row["completion"] = row.pop("canonical_solution")
    done = gemsmith("verify", "code", rows(tmp_path / "rows.jsonl", given))
    assert done.returncode == 0
    assert "164 rows in " in done.stderr and ": 164 right" in done.stderr
