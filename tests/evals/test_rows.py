"""The rows of a policy that an evaluation keeps: read again, and a file that is cut is named."""

from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.evals.rows import Answer, AnsweredPrompt, load_rows, save_rows
from tests.messages import raises_facts

ANSWER = Answer("7", 2, True, 1.0, {"correct": 1.0})
ROWS = [AnsweredPrompt(prompt, "7", ANSWER, [ANSWER], None) for prompt in ("3 + 4 =", "5 + 2 =")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_rows(ROWS, tmp_path / "sft.jsonl")
    return tmp_path / "sft.jsonl"


def test_kept_rows_are_read_again_for_the_same_prompts_only(path: Path):
    assert load_rows(path, ["3 + 4 =", "5 + 2 ="], 1) == ROWS
    assert load_rows(path, ["3 + 4 ="], 1) is None
    assert load_rows(path.with_name("none"), ["3 + 4 ="], 1) is None


@pytest.mark.parametrize("content", [b'{"prompt": "3 +', b"[]\n", b"{}\n", b'{"sampled": 3}\n', b"\xff\xfe\n", b"7\n"])
def test_damaged_rows_are_named(path: Path, content: bytes):
    path.write_bytes(path.read_bytes()[:-40] + b"\n" + content)
    with raises_facts(UserError, path, "could not be read", "delete it"):
        load_rows(path, ["3 + 4 =", "5 + 2 ="], 1)
