"""Comparison of an answer with the truth without mathematics: exact numbers, wording, structure, units.

`gemsmith.sandboxes.mathematics.worker` decides the remaining cases element by element with math-verify. Everything here
takes time at most proportional to the square of a short text, and evaluates nothing.
"""

import re
from fractions import Fraction
from functools import lru_cache

from gemsmith.sandboxes.mathematics.characters import plain
from gemsmith.sandboxes.mathematics.extraction import LONGEST_EXPRESSION, words
from gemsmith.sandboxes.mathematics.numerals import plain_number, quantity
from gemsmith.sandboxes.mathematics.structure import equal, structure
from gemsmith.sandboxes.verdict import Status

DEEPEST = 60
Finding = tuple[Status, str]
_SPACES = re.compile(r"\\left|\\right|\\displaystyle|(?<!\\)\\[,;:! ]|[\s$`~]|\\quad")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)(?:\\[,;: ]|\s)+(?=\d)")
_WRAPPED = re.compile(r"\\(?:text|mbox|mathrm|textrm|textbf|mathbf|operatorname)\s*\{([^{}]*)\}")
_TEN_TO_THE = re.compile(
    r"(?:\\times|\\cdot|\*|x(?=\s*10\s*\^))\s*10\s*\^\s*(?:\{[^{}]*\}|\d+)|^10\s*\^\s*(?:\{[^{}]*\}|\d+)$"
)
_UNDONE = re.compile(
    r"^-|[+*!^|]|\\(?:times|cdot|div|binom|sqrt|sum|prod|int|max|min|gcd|lcm|log|ln|sin|cos|tan|[lr]floor|[lr]ceil|[bp]?mod"
    r"|operatorname|det|lim|approx|equiv|sim|cong)(?![a-z])|(?<=[\w)}])\s*-|sqrt|\d\s+\d|(?:/|frac).*(?:/|frac)"
)
_DIVISION = re.compile(r"/|\\[dtc]?frac")
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])|(?<=\d)[A-Za-z]")
_NOTATION = re.compile(r"\d_\{?\w|\d\s*:\s*\d")
"""Bases and ratios, which math-verify would read as variables and quotients."""
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\w)", re.IGNORECASE)
_FRACTION = re.compile(r"\\[dtc]frac")
_LETTER = re.compile(r"\((\w)\)")
_SUBSCRIPT = re.compile(r"_\{(\w+)\}")
_SYMBOL = re.compile(r"\s*(?:[A-Za-z]|\\[a-z]+)\s*")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_RAISED = re.compile(r"\s*\^\s*\{?\s*\d\s*\}?\s*$")
_SPOKEN = re.compile(r"(?<![A-Za-z])(?:if|for|or|as|is|at|so|no|in|to)(?![A-Za-z])")
_STATED = re.compile(r"=\s*(?:[A-Za-z]|\\[a-z]+)\s*$")
_UNITS = """
mm millimeter millimetre / cm centimeter centimetre / m meter metre / km kilometer kilometre / in inch inche
/ ft foot feet / yd yard / mi mile / mg milligram / g gram / kg kilogram / lb pound / oz ounce
/ ml milliliter millilitre / l liter litre
/ s sec second / min minute / h hr hour / day / week / month / year / cent / $ dollar usd / € euro eur / am a.m / pm p.m
/ mph / km/h kph / m/s / % percent / degree deg circ
"""
_SAME_UNIT = {word: line.split()[0] for line in _UNITS.replace("\n", " ").split(" / ") for word in line.split()}


def at_once(answer: str, truth: str) -> Finding | None:
    """Return the verdict on an answer if it needs no mathematics; else None."""
    if len(answer) > LONGEST_EXPRESSION:
        return Status.UNPARSABLE, f"longer than {LONGEST_EXPRESSION} characters"
    if _depth(answer) > DEEPEST:
        return Status.UNPARSABLE, f"nested deeper than {DEEPEST} brackets"
    if len(truth) > LONGEST_EXPRESSION or _depth(truth) > DEEPEST:  # data is guarded like answers
        same = wording(answer) == wording(truth)
        return Status.RIGHT if same else Status.WRONG, "compared as text, as the ground truth is too long or too deep"
    answer, truth = plain(answer), plain(truth)
    if not structure(answer).kind and not structure(truth).kind:
        return _leaf(answer, truth)
    if wording(answer) == wording(truth):
        return Status.RIGHT, "the same text"
    found = equal(answer, truth, known)
    if found is None:
        return None
    return Status.RIGHT if found else Status.WRONG, "compared element by element"


def known(answer: str, truth: str) -> bool | None:
    """Return whether two elements are equal, if that needs no mathematics; else None."""
    found = _leaf(answer, truth)
    return None if found is None else found[0] is Status.RIGHT


def stated_number(answer: str) -> Fraction | None:
    """Return the plain number that an answer is, or that its equation gives: 15 * 8 = 120, x + y = 5, and 5 = x."""
    left, equals, right = answer.rpartition("=")
    if not equals or plain_number(answer) is not None:
        return plain_number(answer)
    if left.rstrip()[-1:] in tuple("!<>~"):
        return None
    if _SYMBOL.fullmatch(right):
        return plain_number(left)
    number = plain_number(right)
    if any(side is not None and side != number for side in map(plain_number, left.split("="))):
        return None  # x = 5 = 6
    equation = number == 0 and has_variable(left) and not _SYMBOL.fullmatch(left)  # 5x - 7y = 0 does not state a 0
    return None if _SPOKEN.search(_COMMAND.sub(" ", left)) or words(left) or equation else number


def is_text(text: str) -> bool:
    """Return True if a text is words rather than mathematics."""
    return bool(words(quantity(text).bare)) or len(text) > LONGEST_EXPRESSION


def has_variable(text: str) -> bool:
    """Return True if a text contains a single letter."""
    return bool(_VARIABLE.search(_COMMAND.sub(" ", _WRAPPED.sub(" ", text))))


def wording(text: str) -> str:
    """Return a text without parts that do not change its meaning: spaces, sizes, fonts, articles; words in lower
    case.
    """
    bare = _SPACES.sub("", _BETWEEN_DIGITS.sub("_", _WRAPPED.sub(r"\1", _ARTICLE.sub("", text.strip())))).strip("*")
    bare = _SUBSCRIPT.sub(r"_\1", _FRACTION.sub(r"\\frac", bare).replace("\\varnothing", "\\emptyset").rstrip("."))
    bare = bare.removeprefix("+")
    bare = match[1] if (match := _LETTER.fullmatch(bare)) else bare
    return bare.casefold() if words(text) else bare


def _leaf(answer: str, truth: str) -> Finding | None:
    true_number, number = plain_number(truth), stated_number(answer)
    if true_number is not None and _undone(answer, true_number.denominator == 1 and not _DIVISION.search(truth)):
        return Status.WRONG, "unevaluated arithmetic"
    if true_number is not None and number is not None:
        return _same_quantity(answer, truth, number == true_number)
    if wording(answer) == wording(truth):
        return Status.RIGHT, "the same text"
    if is_text(truth):
        return Status.WRONG, "compared as text"
    if is_text(answer):
        return Status.UNPARSABLE, "words instead of mathematics"
    if (true_number is None) != (plain_number(answer) is None) and has_variable(
        answer if true_number is not None else truth
    ):
        return Status.WRONG, "a variable on one side, a number on the other"
    if true_number is not None and "=" in answer:
        return Status.WRONG, "an equation that does not state a number"
    if _NOTATION.search(truth) or _NOTATION.search(answer):
        return Status.WRONG, "a base or a ratio, and not the same"
    return None


def _same_quantity(answer: str, truth: str, same_number: bool) -> Finding:
    found, wanted = quantity(answer), quantity(truth)
    if not same_number:
        return Status.WRONG, "compared as exact numbers"
    if found.name and wanted.name and wording(found.name) != wording(wanted.name):
        return Status.WRONG, f"the value of {found.name}, not of {wanted.name}"
    if found.unit and wanted.unit:
        (unit, power), (true_unit, true_power) = _unit(found.unit), _unit(wanted.unit)
        known = unit is not None and true_unit is not None
        if power != true_power or (known and unit != true_unit):
            return Status.WRONG, f"{found.unit}, not {wanted.unit}"
    return Status.RIGHT, "compared as exact numbers"


@lru_cache(maxsize=1024)
def _unit(unit: str) -> tuple[str | None, int]:
    """Return one name for all spellings of a common unit (None for other units, which are not compared), and its
    power.
    """
    bare, raised = _RAISED.subn("", unit.strip().lower())
    power = next((int(digit) for digit in reversed(unit) if digit.isdigit()), 1) if raised else 1
    bare, squares = re.subn(r"^(?:square|sq\.?)\s+", "", bare)
    bare, cubes = re.subn(r"^(?:cubic|cu\.?)\s+", "", bare)
    power = 2 if squares else 3 if cubes else power
    bare = bare.strip(" .")
    return next((_SAME_UNIT[word] for word in (bare, bare[:-1], bare[:-2]) if word in _SAME_UNIT), None), power


def _undone(answer: str, whole: bool) -> bool:
    """Return True if an answer contains unevaluated arithmetic: 3 + 4 for 7, and 84/2 for a whole number.

    Otherwise a policy that repeats the question would be right. Powers of ten are notation.
    """
    last = quantity(_STATED.sub("", answer)).bare.rpartition("=")[2].strip()
    last = last[1:].lstrip() if last[:1] in ("+", "-") else last
    if not whole and plain_number(last) is not None:
        return False
    last = _TEN_TO_THE.sub("", last)
    return bool(_UNDONE.search(last) or (whole and _DIVISION.search(last)))


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest
