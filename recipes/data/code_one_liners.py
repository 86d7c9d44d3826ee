"""Data of code-one-liners.yaml: small functions asked for in words, with demonstrations of which many are wrong."""

import random
from collections.abc import Iterator
from typing import Any

TESTED = (-9, -6, -4, -2, -1, 0, 1, 2, 3, 5, 7, 9)
"""The values of x that each function is called with; a limit applies to about half of them."""
HABIT = 0.85
"""Share of wrong demonstrations of "at least" that write min for max: the likeliest program is a wrong one there."""


def tasks(seed: int, size: int, right: float = 0.36, copies: int = 4) -> Iterator[dict[str, Any]]:
    """Rows with prompt, demonstration, answer (a right program) and tests, `copies` for each of `size` prompts.

    Args:
        seed: of everything random.
        size: distinct prompts.
        right: share of demonstrations that are right; the others have one or two slips, or follow a bad habit.
        copies: demonstrations of each prompt.
    """
    draw = random.Random(seed)
    wanted: dict[tuple[int | str, ...], None] = {}
    while len(wanted) < size:
        wanted[_function(draw)] = None
    for function in wanted:
        answer = _program(function)
        tests = {"function": "f", "calls": [[[x], _value(function, x)] for x in TESTED]}
        for _ in range(copies):
            shown = function if draw.random() < right else _slipped(draw, function)
            yield {"prompt": _prompt(function), "demonstration": _program(shown), "answer": answer, "tests": tests}


Function = tuple[int | str, ...]


def _function(draw: random.Random) -> Function:
    """factor, sign, summand, limit's kind, limit."""
    factor, summand = draw.randint(2, 9), draw.randint(1, 9)
    kind = draw.choice(("most", "least"))
    return factor, draw.choice("+-"), summand, kind, draw.randint(1, 9)


def _prompt(function: Function) -> str:
    factor, sign, summand, kind, limit = function
    word = "plus" if sign == "+" else "minus"
    return f"Write f(x): x times {factor} {word} {summand}, at {kind} {limit}"


def _program(function: Function) -> str:
    factor, sign, summand, kind, limit = function
    return f"def f(x): return {'min' if kind == 'most' else 'max'}(x * {factor} {sign} {summand}, {limit})"


def _value(function: Function, x: int) -> int:
    factor, sign, summand, kind, limit = function
    assert isinstance(factor, int) and isinstance(summand, int) and isinstance(limit, int)
    value = x * factor + (summand if sign == "+" else -summand)
    return min(value, limit) if kind == "most" else max(value, limit)


def _slipped(draw: random.Random, function: Function) -> Function:
    """Another function that differs in one place or in two; for "at least" mostly the one with "at most"."""
    factor, sign, summand, kind, limit = function
    if kind == "least" and draw.random() < HABIT:
        return factor, sign, summand, "most", limit
    other = _function(draw)
    while other == function:
        other = _function(draw)
    places = [place for place in range(len(function)) if other[place] != function[place]]
    changed = set(draw.sample(places, min(len(places), draw.choice((1, 1, 2)))))
    return tuple(other[place] if place in changed else function[place] for place in range(len(function)))
