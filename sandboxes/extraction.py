"""Where the answer stands in a completion: one candidate, found in a strict order, without looking at the truth.

The order: what follows </think>; the last balanced \\boxed{}; "the (final) answer is ..." or "#### n", whichever stands
last; the last $...$; a completion that is nothing but one expression; a last line "= n" or "x = n". Text is searched,
never evaluated.
"""

import re
from dataclasses import dataclass

from sandboxes.numerals import plain_number

LONGEST_TAIL = 100_000
LONGEST_EXPRESSION = 1000
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_PHRASE = re.compile(
    r"\b(?:final answer|the answer|answer)\b[*_]*\s{0,9}(?:is\b|:|=)[ \t:*_]{0,9}\n?(?:(?:therefore|thus|then)\b,?)?",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"\.(?=\s|$)|[!?](?=\s|$)")
_HASHES = re.compile(r"####[ \t]*([^\n]+)")
_DOLLARS = re.compile(r"(?<!\\)\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_LEADING_DOLLARS = re.compile(r"\s*\$\$?([^$]+)\$\$?|\s*\\\((.+?)\\\)")
_CALCULATOR = re.compile(r"<<[^<>]*>>")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textrm|textbf|operatorname)\s*\{([^{}]*)\}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_MATHS = """
sin cos tan cot sec csc arcsin arccos arctan log exp sqrt infinity inf and binom frac det max min mod gcd lcm
"""
_MATHS_WORDS = frozenset(_MATHS.split())


@dataclass(frozen=True)
class Candidate:
    """An answer and the rule that found it."""

    text: str
    rule: str


def find_answer(completion: str) -> Candidate | None:
    """The one answer of a completion, or None when it commits itself to none.

    A completion that opens <think> and never closes it has not answered. Of a very long completion only the last
    100,000 characters are read.
    """
    text = completion[-LONGEST_TAIL:]
    before, closing, after = text.rpartition("</think>")
    if closing:
        text = after
    elif "<think>" in before or "<think>" in after:
        return None
    for rule, find in (
        ("boxed", last_boxed),
        ("marked", _after_mark),
        ("dollars", _last_dollars),
        ("whole", _whole),
        ("last line", _last_line),
    ):
        found = _CALCULATOR.sub("", find(text) or "").strip(" \t\r\n*_")
        if found:
            return Candidate(found, rule)
    return None


def stated_answer(truth: str) -> str:
    """The answer that a ground truth states: after "####" (GSM8K), inside \\boxed{}, inside one $...$, or all of it."""
    if hashes := _HASHES.findall(truth):
        return hashes[-1].strip()
    if (boxed := last_boxed(truth)) is not None:
        return boxed.strip()
    dollars = _DOLLARS.fullmatch(truth.strip())
    return _group(dollars).strip() if dollars else truth.strip()


def last_boxed(text: str) -> str | None:
    """Content of the last \\boxed{} whose braces balance; the innermost box of nested ones. One pass over the text."""
    opened: list[tuple[bool, int]] = []
    last: tuple[int, int] | None = None
    for match in _BRACES.finditer(text):
        token = match.group()
        if token == "{":
            opened.append((False, match.end()))
        elif token.startswith(("\\boxed", "\\fbox")):
            opened.append((True, match.end()))
        elif token == "}" and opened:
            boxed, start = opened.pop()
            if boxed and (last is None or start > last[0]):
                last = (start, match.start())
    return text[last[0] : last[1]] if last else None


def is_expression(text: str) -> bool:
    """Whether a text is mathematics alone: on one line, not long, with a digit or a letter, no words and no box."""
    if len(text) > LONGEST_EXPRESSION or "\n" in text.strip() or "\\boxed" in text:
        return False
    return bool(re.search(r"[\dA-Za-z]", text)) and not words(text)


def words(text: str) -> list[str]:
    """The words of a text that are no mathematics, in order; \\text{...} counts as words."""
    bare = _COMMAND.sub(" ", _TEXT.sub(r" \1 ", text))
    return [word for word in _WORD.findall(bare) if word.lower() not in _MATHS_WORDS]


def _after_mark(text: str) -> str | None:
    phrases, hashes = list(_PHRASE.finditer(text)), list(_HASHES.finditer(text))
    if hashes and (not phrases or hashes[-1].start() > phrases[-1].start()):
        return hashes[-1][1]
    if not phrases:
        return None
    rest = text[phrases[-1].end() :].partition("\n")[0]
    leading = _LEADING_DOLLARS.match(rest)
    if leading and is_expression(_group(leading)):
        return _group(leading)
    end = _SENTENCE_END.search(rest)
    return rest[: end.start()] if end else rest


def _last_dollars(text: str) -> str | None:
    found = [_group(match) for match in _DOLLARS.finditer(text)]
    return next((inside for inside in reversed(found) if is_expression(inside)), None)


def _whole(text: str) -> str | None:
    whole = text.strip()
    if "=" in whole or not whole:
        return None
    one_word = re.fullmatch(r"[A-Za-z]+\.?", whole)
    return whole.rstrip(".") if one_word or is_expression(whole) or plain_number(whole) is not None else None


def _last_line(text: str) -> str | None:
    lines = text.strip().splitlines()
    if not lines:
        return None
    left, equals, right = lines[-1].rpartition("=")
    named = re.fullmatch(r"\s*(?:[A-Za-z]\w{0,20}\s*)?", left) is not None
    if not equals or not (named or is_expression(left)):
        return None
    return right if is_expression(right) or plain_number(right) is not None else None


def _group(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None)
