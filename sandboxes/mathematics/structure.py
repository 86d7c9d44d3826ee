"""Sets, tuples, intervals, lists, unions and matrices: the structure of an answer, and comparison of structures.

This module splits a structured answer at its brackets, so that (1, 2) never equals [1, 2] or {1, 2}, and every element
is compared on its own. Sets and lists have no order; tuples, intervals and matrices have one.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from gemsmith.sandboxes.mathematics.numerals import plain_number

Leaf = Callable[[str, str], bool | None]
"""Function that decides whether an answer's element equals a truth's; None if it cannot decide."""
MOST = 100
_WORD = r"\\(?:text|mbox|mathrm|textrm)\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])"
_TOKEN = re.compile(
    rf"(?P<separator>,?\s*(?:{_WORD})|[,;])|(?P<union>\\cup(?![a-z]))|(?P<opening>\\[{{]|\\l(?:angle|brace)(?![a-z])|[(\[{{])"
    r"|(?P<closing>\\[}]|\\r(?:angle|brace)(?![a-z])|[)\]}])|\\."
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SPACED_COMMA = re.compile(r"[,;]\s")
_PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![a-z])")
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix|array)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}", re.DOTALL)
_SIZES = re.compile(r"\\(?:left|right|[bB]ig[glr]?|displaystyle)(?![a-z])\.?|(?<!\\)\\[,:! ]")
_NAMED = re.compile(
    r"\s*(?:[A-Za-z]\w{0,20}|\\[a-z]{1,12}|\([A-Za-z](?:,\s*[A-Za-z]){0,5}\))\s*(?:=|\\in(?![a-z]))\s*(?=[(\[]|\\\{|\\lbrace|\\begin)"
)
_OR = re.compile(r"(?<![A-Za-z])or(?![A-Za-z])")
_RELATION = re.compile(r"[<>]|\\(?:(?:le|ge|lt|gt|ne)(?:q|qslant)?|setminus|backslash|cap|mathbb)(?![a-z])")


@dataclass(frozen=True)
class Structure:
    """Structure of a text. `kind` is "" for a single element, "set" for sets and lists, else its brackets."""

    kind: str
    elements: tuple[str, ...]


def equal(answer: str, truth: str, leaf: Leaf) -> bool | None:
    """Return True if two texts have equal parts; `leaf` compares parts without structure.

    None if `leaf` could not decide and nothing else differs.
    """
    found, wanted = structure(answer), structure(truth)
    if not found.kind and not wanted.kind:
        return leaf(found.elements[0], wanted.elements[0])
    if (not found.kind and _RELATION.search(answer)) or (not wanted.kind and _RELATION.search(truth)):
        return leaf(answer, truth)  # x < 2 and (-oo, 2)
    found, wanted = _alternatives(found, answer), _alternatives(wanted, truth)
    if "set" in (found.kind, wanted.kind) and len(found.elements) == len(wanted.elements) == 1:
        return equal(found.elements[0], wanted.elements[0], leaf)  # {5} and 5
    if found.kind != wanted.kind or len(found.elements) != len(wanted.elements) or len(wanted.elements) > MOST:
        return False
    if wanted.kind in ("set", "union"):
        return _matched(list(found.elements), wanted.elements, leaf)
    return _all(equal(a, t, leaf) for a, t in zip(found.elements, wanted.elements, strict=True))


@lru_cache(maxsize=4096)
def structure(text: str) -> Structure:
    """Split a text at its outermost brackets, commas and unions; brackets around one element are removed."""
    alone = Structure("", (text,))
    if plain_number(text) is not None:
        return alone
    bare = _SIZES.sub(" ", text).strip()
    bare = bare[match.end() :] if (match := _NAMED.match(bare)) else bare
    if (matrix := _MATRIX.fullmatch(bare)) and "\\begin" not in matrix[2]:
        rows = [row.split("&") for row in matrix[2].strip().removesuffix("\\\\").split("\\\\")]
        return Structure(f"matrix of {len(rows)} rows", tuple(cell.strip() for row in rows for cell in row))
    members = _split(bare, "union")
    if members is None:
        return alone
    if len(members) > 1:
        return Structure("union", tuple(members))
    brackets, inside = _unwrapped(bare)
    elements = _split(inside, "separator") or []
    if not all(elements):
        return alone
    if brackets in ("", "{}"):
        elements = [each for element in elements for each in _both_signs(element)]
        return Structure("set", tuple(elements)) if brackets or len(elements) > 1 else alone
    if len(elements) > 1:
        return Structure(brackets, tuple(elements))
    return structure(inside) if brackets == "()" else alone


def _alternatives(found: Structure, text: str) -> Structure:
    """Return x < 2 or x > 3 as a union, not a list."""
    relations = found.kind == "set" and _OR.search(text) and all(_RELATION.search(each) for each in found.elements)
    return Structure("union", found.elements) if relations else found


def _matched(found: list[str], wanted: Iterable[str], leaf: Leaf) -> bool | None:
    """Return True if the elements can be paired."""
    unknown = False
    for truth in wanted:
        verdicts = [equal(answer, truth, leaf) for answer in found]
        if True in verdicts:
            del found[verdicts.index(True)]
        elif None in verdicts:
            unknown = True
        else:
            return False
    return None if unknown else True


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    unknown = False
    for verdict in verdicts:
        if verdict is False:
            return False
        unknown = unknown or verdict is None
    return None if unknown else True


def _split(text: str, at: str) -> list[str] | None:
    """Split at separators (or unions) outside all brackets; return None if brackets do not match."""
    grouped = set()
    if _SPACED_COMMA.search(text):  # 1,000, 2,000
        grouped = {match.start() for match in _THOUSANDS.finditer(text)}
    parts, depth, start = [], 0, 0
    for match in _TOKEN.finditer(text):
        if match["opening"]:
            depth += 1
        elif match["closing"]:
            depth -= 1
            if depth < 0:
                return None
        elif match[at] and not depth and match.start() not in grouped:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return None if depth else [*parts, text[start:].strip()]


def _unwrapped(text: str) -> tuple[str, str]:
    """Return the brackets around a whole text, such as "(]", and its content; else "" and the text."""
    opening, depth = "", 0
    for match in _TOKEN.finditer(text):
        if match["opening"]:
            if not depth and match.start() == 0:
                opening = match["opening"]
            depth += 1
        elif match["closing"]:
            depth -= 1
            if not depth:
                if not opening or match.end() != len(text):
                    return "", text
                return _plain(opening) + _plain(match["closing"]), text[len(opening) : match.start()]
    return "", text


def _plain(bracket: str) -> str:
    return {"\\langle": "<", "\\rangle": ">", "\\lbrace": "{", "\\rbrace": "}"}.get(bracket, bracket[-1])


def _both_signs(element: str) -> list[str]:
    """Return a ± b as its two values."""
    if len(_PLUS_MINUS.findall(element)) != 1:
        return [element]
    return [_PLUS_MINUS.sub(f" {sign} ", element).strip() for sign in "+-"]
