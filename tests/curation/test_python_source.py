"""Rows that a function of the user's own makes, in a child process."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from gemsmith.contracts.errors import UserError
from gemsmith.curation.config import AnyData
from gemsmith.curation.load import DataSplit, load_data

SQUARES = """
def rows(seed, size, offset=0):
    print("noise")
    for number in range(size):
        prompt = f"{number + offset} squared"
        yield {"prompt": prompt, "answer": number ** 2, "seed": seed, "tests": {"calls": [number]}}

def plain(size):
    return [{"prompt": str(number)} for number in range(size)]
"""


def load(folder: Path, source: str, seed: int = 0, **section: Any) -> DataSplit:
    (folder / "mine.py").write_text(source)
    fields = {"source": "python", "target": "mine.py:rows", "holdout": 0, **section}
    return load_data(TypeAdapter(AnyData).validate_python(fields), name="made", seed=seed, root=folder)


def test_rows_become_examples_as_from_any_other_source(tmp_path: Path):
    options = {"size": 3, "offset": 10}
    split = load(tmp_path, SQUARES, 7, options=options, answer="{answer}", columns=["tests", "seed"])
    assert [example.prompt for example in split.train] == ["10 squared", "11 squared", "12 squared"]
    assert [example.answer for example in split.train] == ["0", "1", "4"]
    assert split.train[2].columns == {"tests": {"calls": [2]}, "seed": 7}
    assert split.train[2].where == "mine.py:rows row 2"


def test_a_function_that_takes_no_seed_is_given_none(tmp_path: Path):
    split = load(tmp_path, SQUARES, target="mine.py:plain", options={"size": 2})
    assert [example.prompt for example in split.train] == ["0", "1"]


def test_the_order_of_sets_is_the_same_in_every_process(tmp_path: Path):
    source = "def rows(): return [{'prompt': word} for word in {'one', 'two', 'three', 'four'}]"
    assert load(tmp_path, source) == load(tmp_path, source)


@pytest.mark.parametrize(
    ("source", "section", "words"),
    [
        ("def rows(): return 3", {}, "TypeError: 'int' object is not iterable"),
        ("def rows(): return ['text']", {}, "row 0 is a str, expected a dict"),
        ("def rows(): return [{'prompt': 'p', 'x': object()}]", {}, "Object of type object is not JSON serializable"),
        ("def rows():\n    raise ValueError('no data')", {}, "it raised ValueError: no data at "),
        ("import no_such_module\ndef rows(): ...", {}, "ModuleNotFoundError"),
        ("def rows(size): return []", {"options": {"sise": 3}}, "unexpected keyword argument 'sise'"),
        ("rows = 3", {}, "has a int, not a function, rows"),
        ("def rows(): import os; os._exit(3)", {}, "its process exited with code 3"),
        ("def rows(): import sys; sys.exit('leaving')", {}, "it raised SystemExit: leaving"),
        (
            "def rows():\n    while True: pass",
            {"time_limit": 1.0},
            "no answer within 1 s",
        ),
        ("def rows(): return []", {"target": "other.py:rows"}, "no file other.py"),
        ("def rows(): return []", {"target": "rows"}, 'found "rows", expected file.py:function or'),
        ("def rows(): return []", {}, "no examples (the source has no rows)"),
    ],
)
def test_a_function_that_makes_no_rows_says_what_and_where(
    tmp_path: Path, source: str, section: dict[str, Any], words: str
):
    with pytest.raises(UserError) as caught:
        load(tmp_path, source, **section)
    assert str(caught.value).startswith("data made: ")
    assert words in str(caught.value)
