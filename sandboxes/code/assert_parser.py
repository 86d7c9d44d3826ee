"""Parsing of asserts as calls: `assert f(1, 2) == 3` needs no test code to run, only a call and an expected value.

Nothing is executed here. The parser understands an assert that compares one call of the program's own function with a
constant: by == or `is`, within a tolerance (`math.isclose(f(x), y)`, `abs(f(x) - y) < e`), or as true or false.
"""

import ast
import builtins
import math
import operator
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gemsmith.sandboxes.code.jobs import CallCase, Calls

NUMBERED = "_numbered_case"
"""Name of a function appended to a program; it makes the test's own call of that number if arguments are not
constants.
"""
_AS_BOOL = "_as_bool"
_AS_BOOL_SOURCE = f"""
def {_AS_BOOL}(value):
    return value == 1 if type(value) in (int, float) and value in (0, 1) else value
"""
"""In Python 1 == True, in a sandbox it is not. A program that changes this function could return True just as well."""
_LARGEST_BITS = 14_000  # of a whole number: Python refuses to write out more than 4,300 digits
_LARGEST = 10_000  # of an exponent, and of what a constant's arithmetic may repeat
_BUILTINS = frozenset(dir(builtins))
_MADE_FROM_ONE: dict[str, Callable[..., Any]] = {
    kind.__name__: kind for kind in (set, frozenset, tuple, list, dict, float, complex)
}
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True)
class _Read:
    """A parsed assert: a call, the comparison of its value, and how the value becomes a bool."""

    call: ast.Call
    expected: object
    tolerance: float = 0.0
    made_bool: Literal["", "by truth", "by equality"] = ""

    @property
    def function(self) -> str:
        assert isinstance(self.call.func, ast.Name)
        return self.call.func.id

    def case(self) -> CallCase | None:
        """Return the call with its arguments as values; None if they are not constants."""
        try:
            arguments = tuple(constant(argument) for argument in self.call.args)
            keywords = {str(keyword.arg): constant(keyword.value) for keyword in self.call.keywords}
        except ValueError:
            return None
        return CallCase(arguments, self.expected, keywords, self.tolerance)

    def expression(self) -> str:
        text = ast.unparse(self.call)
        return {"": text, "by truth": f"not not {text}", "by equality": f"{_AS_BOOL}({text})"}[self.made_bool]


@dataclass(frozen=True)
class SplitTest:
    """A test as calls: the job without a program, the source appended to the program, and a description of each
    call.
    """

    calls: Calls
    suffix: str
    shown: tuple[str, ...]


def split_asserts(
    asserts: Sequence[ast.Assert], own: Collection[str], setup: Sequence[ast.stmt] = ()
) -> SplitTest | None:
    """Return a test's asserts as calls; None if one of them cannot be parsed.

    If arguments are made of the program's own classes, or a value counts as true or false, the program evaluates the
    call itself; its return value is still compared outside. Tests that compute anything else are left to the judge,
    whose own functions and built-ins no program can change.

    Args:
        asserts: the test's asserts, in order.
        own: names that the test expects the program to define.
        setup: statements before them.
    """
    found = [_read(node.test, own) for node in asserts if not _always(node.test)]
    read = [one for one in found if one is not None]
    if not read or len(read) < len(found):
        return None
    cases = [one.case() for one in read]
    plain = [case for one, case in zip(read, cases, strict=True) if case is not None and not one.made_bool]
    shown = tuple(ast.unparse(one.call) for one in read)
    if len(plain) == len(cases) and len({one.function for one in read}) == 1:
        return SplitTest(Calls("", read[0].function, tuple(plain)), "", shown)
    made = _bound(setup) if _names(setup) & set(own) else set()
    if not all(case is not None or _evaluable(one, own, made) for one, case in zip(read, cases, strict=True)):
        return None
    needed = setup if any(_names(one.call.args) & made for one in read) else ()
    lines = [ast.unparse(statement) for statement in needed]
    lines += [_AS_BOOL_SOURCE] if any(one.made_bool == "by equality" for one in read) else []
    lines += ["", f"def {NUMBERED}(number):", "    return ("]
    lines += [*(f"        lambda: {one.expression()}," for one in read), "    )[number]()", ""]
    numbered = tuple(CallCase((n,), one.expected, {}, one.tolerance) for n, one in enumerate(read))
    return SplitTest(Calls("", NUMBERED, numbered), "\n\n" + "\n".join(lines), shown)


def free_names(statements: Sequence[ast.stmt]) -> tuple[set[str], set[str]]:
    """Return the names that a test uses and does not define: the program's, and modules of the standard library."""
    used = _names(statements) - _bound(statements) - _BUILTINS
    prefixes = {
        node.value.id
        for statement in statements
        for node in ast.walk(statement)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    modules = used & prefixes & sys.stdlib_module_names
    own = used - modules
    return own or _compared_calls(statements), modules


def constant(node: ast.expr) -> Any:
    """Return the value of a constant expression: literals, containers, arithmetic of numbers, set([...]), float("nan").

    Raises:
        ValueError: it is something else, or too large.
    """
    if isinstance(node, ast.Constant) and node.value is not Ellipsis:
        return node.value
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        kind = {ast.Tuple: tuple, ast.List: list, ast.Set: set}[type(node)]
        return _made(kind, [constant(element) for element in node.elts])
    if isinstance(node, ast.Dict) and None not in node.keys:
        keys = [constant(key) for key in node.keys if key is not None]
        return _made(dict, list(zip(keys, map(constant, node.values), strict=True)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _number(constant(node.operand))
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _arithmetic(node.op, constant(node.left), constant(node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords and len(node.args) < 2:
        make = _MADE_FROM_ONE.get(node.func.id)
        if make is not None:
            return _made(make, *(constant(argument) for argument in node.args))
    raise ValueError(f"no constant: {ast.unparse(node)[:80]}")


def _read(test: ast.expr, own: Collection[str]) -> _Read | None:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = _call(test.operand, own)
        return None if inner is None else _Read(inner, False, made_bool="by truth")
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        return _compared(test.left, test.ops[0], test.comparators[0], own)
    if (call := _call(test, own)) is not None:
        return _Read(call, True, made_bool="by truth")
    return _is_close(test, own) if isinstance(test, ast.Call) else None


def _compared(left: ast.expr, op: ast.cmpop, right: ast.expr, own: Collection[str]) -> _Read | None:
    if isinstance(op, ast.Eq | ast.Is):
        pair = _call_and_constant(left, right, own)
        if pair is None or (isinstance(op, ast.Is) and not (pair[1] is None or isinstance(pair[1], bool))):
            return None
        equal_to_bool = isinstance(op, ast.Eq) and isinstance(pair[1], bool)
        return _Read(*pair, made_bool="by equality" if equal_to_bool else "")
    if isinstance(op, ast.Gt | ast.GtE):
        left, right = right, left
    elif not isinstance(op, ast.Lt | ast.LtE):
        return None
    if not (isinstance(left, ast.Call) and ast.unparse(left.func) in ("abs", "math.fabs") and len(left.args) == 1):
        return None
    difference = left.args[0]
    if not (isinstance(difference, ast.BinOp) and isinstance(difference.op, ast.Sub)):
        return None
    pair = _call_and_constant(difference.left, difference.right, own)
    return None if pair is None else _within(*pair, right)


def _is_close(test: ast.Call, own: Collection[str]) -> _Read | None:
    """Compare like math.isclose: the tolerance is the larger of abs_tol and rel_tol times the true value.

    Python uses the larger of the two values instead of the true one; a relative tolerance of 0.001 is then wider by a
    thousandth of itself.
    """
    if ast.unparse(test.func) not in ("math.isclose", "isclose") or len(test.args) != 2:
        return None
    pair = _call_and_constant(test.args[0], test.args[1], own)
    if pair is None or isinstance(pair[1], bool) or not isinstance(pair[1], int | float):
        return None
    try:
        given = {str(keyword.arg): float(constant(keyword.value)) for keyword in test.keywords}
    except (ValueError, TypeError):
        return None
    if set(given) - {"rel_tol", "abs_tol"}:
        return None
    distance = max(given.get("abs_tol", 0.0), given.get("rel_tol", 1e-9) * abs(pair[1]))
    return _Read(*pair, tolerance=_tolerance(distance, pair[1]))


def _within(call: ast.Call, expected: object, limit: ast.expr) -> _Read | None:
    try:
        distance = constant(limit)
    except ValueError:
        return None
    for value in (expected, distance):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
    return _Read(call, expected, _tolerance(float(distance), expected)) if distance >= 0 else None  # type: ignore[arg-type]


def _tolerance(distance: float, expected: float) -> float:
    """Return a case's tolerance for this distance: it counts once absolutely, and once times the value."""
    return distance / (1.0 + abs(expected))


def _call_and_constant(first: ast.expr, second: ast.expr, own: Collection[str]) -> tuple[ast.Call, object] | None:
    for one, other in ((first, second), (second, first)):
        call = _call(one, own)
        if call is None:
            continue
        try:
            return call, constant(other)
        except ValueError:
            return None
    return None


def _call(node: ast.expr, own: Collection[str]) -> ast.Call | None:
    """Return a call of one of the program's functions, without unpacked arguments."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in own):
        return None
    unpacked = any(isinstance(argument, ast.Starred) for argument in node.args)
    return None if unpacked or any(keyword.arg is None for keyword in node.keywords) else node


def _evaluable(read: _Read, own: Collection[str], made: Collection[str]) -> bool:
    """Return True if a program may evaluate a call's arguments itself: they use no trusted function of the test."""
    inside = [part for part in [*read.call.args, *(keyword.value for keyword in read.call.keywords)]]
    nodes = [node for part in inside for node in ast.walk(part)]
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    if any(isinstance(node, ast.Attribute | ast.Starred | ast.comprehension | ast.Lambda) for node in nodes):
        return False
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return names <= {*own, *made, *(_BUILTINS - called)} and called <= set(own)


def _compared_calls(statements: Sequence[ast.stmt]) -> set[str]:
    """Return functions compared at the top of an assert: a program may be asked for its own `sum`."""
    tests = [statement.test for statement in statements if isinstance(statement, ast.Assert)]
    sides = [test.left if isinstance(test, ast.Compare) else test for test in tests]
    return {side.func.id for side in sides if isinstance(side, ast.Call) and isinstance(side.func, ast.Name)}


def _always(test: ast.expr) -> bool:
    return isinstance(test, ast.Constant) and bool(test.value)


def _names(nodes: Sequence[ast.AST]) -> set[str]:
    return {inner.id for node in nodes for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _bound(statements: Sequence[ast.stmt]) -> set[str]:
    """Return every name that the statements bind, at any depth."""
    bound: set[str] = set()
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                bound.add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                bound.add(node.name)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.alias):
                bound.add(node.asname or node.name.split(".")[0])
            elif isinstance(node, ast.ExceptHandler) and node.name:
                bound.add(node.name)
    return bound


def _made(kind: Callable[..., Any], *values: Any) -> Any:
    try:
        return kind(*values)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(str(error)) from error


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | complex):
        raise ValueError("no number")
    return value


def _arithmetic(op: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(op, ast.Add) and isinstance(left, str) and isinstance(right, str):
        return left + right
    left, right = _number(left), _number(right)
    if isinstance(op, ast.Pow) and (abs(right) > _LARGEST or abs(left) > _LARGEST):
        raise ValueError("too large")
    # Tests come from data: what they multiply is bounded before it is computed, such as 200 factors 10000 ** 10000.
    if isinstance(left, int) and isinstance(right, int):
        bits = {ast.Pow: left.bit_length() * max(right, 1), ast.Mult: left.bit_length() + right.bit_length()}
        if bits.get(type(op), 0) > _LARGEST_BITS:
            raise ValueError("too large")
    try:
        return _OPERATORS[type(op)](left, right)
    except (ArithmeticError, TypeError) as error:
        raise ValueError(str(error)) from error
