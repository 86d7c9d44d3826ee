"""The net for errors of reading files: a sentence that names the file, whatever the parser raised."""

import errno
import json
import pickle
import struct
from pathlib import Path

import pytest

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.reading import log_rows, read_json, reading
from tests.messages import raises_facts


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("metadata"), "it lacks metadata"),
        (TypeError("list indices must be integers"), "another structure"),
        (AttributeError("'list' object has no attribute 'get'"), "another structure"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (MemoryError(), "a size in it is impossible"),
        (OverflowError("cannot fit 'int'"), "a size in it is impossible"),
        (EOFError("Ran out of input"), "ends too early"),
        (struct.error("unpack requires a buffer of 8 bytes"), "ends too early"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "not UTF-8 text"),
        (json.JSONDecodeError("Expecting value", "{\n", 2), "not valid JSON in line 2"),
        (pickle.UnpicklingError("Weights only load failed. ... weights_only=False"), "other than tensors"),
        (RuntimeError("PytorchStreamReader failed:\n  no such archive"), "PytorchStreamReader failed: no such archive"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "No such file"),
        (ValueError("x" * 1000), "x" * 200 + "..."),
        (ValueError(), "ValueError"),
    ],
)
def test_any_error_becomes_one_sentence_that_names_the_file(tmp_path: Path, error: Exception, reason: str):
    wanted = (tmp_path / "file", "a thing", "make it again")
    with raises_facts(UserError, *wanted, reason) as caught, reading(*wanted):
        raise error
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)


@pytest.mark.parametrize("error", [UserError("u"), RunError("r"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_what_is_not_a_fault_of_the_file_passes(error: BaseException):
    with pytest.raises(type(error)) as caught, reading("file", "a thing", "make it again"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "not valid JSON"), ("[]", "a list"), ("7", "a number"), ("null", "nothing"), ('{"a": 1}', "it lacks b")],
)
def test_only_an_object_with_its_names_is_accepted(tmp_path: Path, text: str, reason: str):
    (tmp_path / "file.json").write_text(text)
    with raises_facts(UserError, tmp_path / "file.json", reason):
        read_json(tmp_path / "file.json", "a thing", "make it again", keys=("a", "b"))
    (tmp_path / "file.json").write_text('{"a": 1, "b": 2}')
    assert read_json(tmp_path / "file.json", "a thing", "make it again", keys=("a", "b")) == {"a": 1, "b": 2}


def test_lines_of_a_log_that_a_kill_has_cut_are_left_out(tmp_path: Path):
    assert log_rows(tmp_path / "metrics.jsonl") == []
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"st{"step": 2}\n[]\n\xff\n{"step": 3}\n{"step"')
    assert log_rows(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 3}]
