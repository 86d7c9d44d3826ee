import ast
import math
from typing import Any

import pytest

from gemsmith.sandboxes.code.assert_parser import NUMBERED, SplitTest, constant, free_names, split_asserts
from gemsmith.sandboxes.code.jobs import CallCase


def split(source: str, setup: str = "", own: set[str] | None = None) -> SplitTest | None:
    body, before = ast.parse(source).body, ast.parse(setup).body
    asserts = [node for node in body if isinstance(node, ast.Assert)]
    return split_asserts(asserts, own or free_names([*before, *body])[0], before)


@pytest.mark.parametrize(
    ("source", "case"),
    [
        ("assert f(1, [2], k='a') == (3, None)", CallCase((1, [2]), (3, None), {"k": "a"})),
        ("assert 3 == f(1), 'message'", CallCase((1,), 3)),
        ("assert (f(-1.5)) is None", CallCase((-1.5,), None)),
        ("assert f() is True", CallCase((), True)),
        ("assert f(3 * 19, 'a' + 'b') == {1: {2.0 / 4}}", CallCase((57, "ab"), {1: {0.5}})),
        ("assert f(set([1])) == frozenset({2})", CallCase(({1},), frozenset({2}))),
        ("assert abs(f(2) - 3.0) < 1e-6", CallCase((2,), 3.0, {}, 1e-6 / 4)),
        ("assert 0.5 >= math.fabs(1 - f(2))", CallCase((2,), 1, {}, 0.25)),
        ("assert math.isclose(f(2), -4.0, rel_tol=0.001)", CallCase((2,), -4.0, {}, 0.004 / 5)),
        ("assert math.isclose(0.0, f(2), rel_tol=0.1, abs_tol=0.01)", CallCase((2,), 0.0, {}, 0.01)),
    ],
)
def test_an_assert_becomes_a_call(source: str, case: CallCase):
    found = split(source)
    assert found is not None
    assert found.calls.function == "f" and found.calls.cases == (case,) and found.suffix == ""


@pytest.mark.parametrize(
    "source",
    [
        "assert set(f(1)) == {1}",  # the judge's own `set` must be used, not the program's
        "assert f(1) != 2",
        "assert f(1) < 2",
        "assert f(1) == g(1)",
        "assert f(*[1]) == 1",
        "assert f(sorted([2, 1])) == 1",
        "assert f(len('abc')) == True",
        "assert f(1) is 2",
        "assert f(1) == 1 and f(2) == 2",
        "assert abs(f(1) - 2) < 10 ** 10 ** 10",
        "assert math.isclose(f(1), 2, places=3)",
        "assert f(lambda: 3) == 3",
        "assert [f(1)] == [1]",
    ],
)
def test_any_other_assert_is_left_to_the_judge(source: str):
    assert split(source, own={"f", "g"}) is None
    assert split(f"assert f(1) == 1\n{source}", own={"f", "g"}) is None


def run(found: SplitTest, program: str) -> list[bool]:
    """Run like a sandbox, for harmless programs."""
    names: dict[str, Any] = {}
    exec(program + found.suffix, names)
    values = [names[found.calls.function](*case.arguments) for case in found.calls.cases]
    return [
        type(value) is type(case.expected) and value == case.expected
        for value, case in zip(values, found.calls.cases, strict=True)
    ]


def test_arguments_made_of_the_programs_own_classes_are_made_by_the_program():
    found = split("assert left(root) == 2\nassert left(Node(4, 5)) == 5", "root = Node(1)\nroot.left = 2")
    assert found is not None and found.calls.function == NUMBERED
    assert [case.expected for case in found.calls.cases] == [2, 5]
    assert found.shown == ("left(root)", "left(Node(4, 5))")
    program = "class Node:\n    def __init__(self, n, left=None): self.left = left\ndef left(node): return node.left"
    assert run(found, program) == [True, True]


def test_types_as_arguments_are_the_programs_business_too():
    found = split("assert kept([1, 'a'], int) == [1]")
    assert found is not None
    assert run(found, "def kept(xs, kind): return [x for x in xs if isinstance(x, kind)]") == [True]


def test_a_bare_call_counts_as_true_or_false():
    found = split("assert f([1])\nassert not f([])")
    assert found is not None
    assert run(found, "def f(x): return x") == [True, True]
    assert run(found, "def f(x): return not x") == [False, False]


def test_one_equals_true_as_in_python_and_nothing_else_does():
    found = split("assert f(1) == True\nassert f(0) == False")
    assert found is not None
    assert run(found, "def f(x): return x") == [True, True]
    assert run(found, "def f(x): return bool(x)") == [True, True]
    assert run(found, "def f(x): return float(x)") == [True, True]
    assert run(found, "def f(x): return x or None") == [True, False]
    assert run(found, "def f(x): return 7 * x") == [False, True]
    always = "class Always:\n    def __eq__(self, other): return True\n    def __hash__(self): return 1\n"
    assert run(found, always + "def f(x): return Always()") == [False, False]


def test_a_test_that_says_nothing_is_left_out():
    found = split("assert True, 'fine'\nassert f(1) == 2")
    assert found is not None and len(found.calls.cases) == 1
    assert split("assert True", own={"f"}) is None


def test_free_names_are_the_programs_and_modules_are_not():
    body = ast.parse("import math\ny = 1\nassert f(y, sys.maxsize, [g for g in (1,)]) == h(math.pi)").body
    assert free_names(body) == ({"f", "h"}, {"sys"})
    assert free_names(ast.parse("assert sum(1, 2) == 3").body) == ({"sum"}, set())


@pytest.mark.parametrize(
    ("source", "value"),
    [("-2 ** 3", -8), ("(1, [2, {3: {4}}])", (1, [2, {3: {4}}])), ("float('inf')", math.inf), ("2 - 1j", 2 - 1j)],
)
def test_constants_are_computed(source: str, value: object):
    assert constant(ast.parse(source, mode="eval").body) == value


@pytest.mark.parametrize(
    "source", ["x", "f()", "...", "9 ** 9 ** 9", "1 / 0", "'a' * 9", "[*x]", "{**x}", "{[]: 1}", "True + 1", "int('3')"]
)
def test_anything_else_is_no_constant(source: str):
    with pytest.raises(ValueError):
        constant(ast.parse(source, mode="eval").body)
