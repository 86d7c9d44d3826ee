"""The checks of tools/english.py find what they are for."""

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "tools" / "english.py"


@pytest.fixture(scope="module")
def english():
    spec = importlib.util.spec_from_file_location("english", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["english"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["english"]


def test_docstrings_that_begin_with_a_clause_are_counted(english):
    functions = 'def f():\n    """What it costs."""\nclass A:\n    """As before."""\n'
    source = '"""Losses."""\n' + functions + '    def g(self):\n        """Return it."""\n'
    faults, count = english.headless(Path("a.py"), source)
    assert [(fault.line, fault.text) for fault in faults] == [(3, "What it costs."), (5, "As before.")]
    assert count == 4


def test_phrases_to_avoid_are_found_with_their_lines(english):
    faults = english.phrases(Path("a.md"), "fine\nA weight is no number here.\nIt stands in for another.\n")
    assert [str(fault) for fault in faults] == ["a.md:2: A weight is no number here."]


def test_docstrings_and_blank_lines_are_neither_code_nor_comments(english):
    source = '"""Module.\n\nLong.\n"""\n\n# why\nx = 1\ny = 2  # not a line of its own\n\nz = 3\n'
    assert english.comments_per_100_lines([source]) == pytest.approx(100 * 1 / 3)
