"""Extraction of the answer from a completion: one candidate, found in a strict order, without the true answer.

The search starts after </think> and uses, in this order: the last balanced \\boxed{}; "the (final) answer is ..." in
any of MGSM's eleven languages or "#### n", whichever comes last; the last $...$; a completion that is a single
expression; a last line "= n" or "x = n". Adjacent answers (\\boxed{5} or \\boxed{6}) are one candidate, a list. Text is
searched, never evaluated.
"""

import re
from dataclasses import dataclass

from gemsmith.sandboxes.mathematics.characters import composed
from gemsmith.sandboxes.mathematics.languages import ANNOUNCED, ANNOUNCED_IN_ASCII
from gemsmith.sandboxes.mathematics.numerals import plain_number

LONGEST_TAIL = 100_000
LONGEST_EXPRESSION = 1000
LONGEST_JOINT = 40
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_SENTENCE_END = re.compile(r"\.(?=\s|$)|[!?](?=\s|$)|[।。！？]|\n")
_REASON = re.compile(r",?\s{1,9}\(?(?:because|since|not|rather than|instead of)\b.*", re.IGNORECASE | re.DOTALL)
_HASHES = re.compile(r"####[ \t]*([^\n]+)")
_MATHS = r"(?<!\\)\$\$?([^$]+)\$\$?|\\\(((?:[^\\]|\\(?![()]))+)\\\)|\\\[((?:[^\\]|\\(?![\[\]]))+)\\\]"
_DOLLARS = re.compile(_MATHS, re.DOTALL)
_LEADING_DOLLARS = re.compile(rf"\s*(?:{_MATHS})", re.DOTALL)
_HEADING = re.compile(r"^#{1,6}[ \t]*(?:final[ \t]+)?answer[ \t:]*\n\s*", re.IGNORECASE | re.MULTILINE)
_CALCULATOR = re.compile(r"<<[^<>]*>>")
_BESIDE = r"(?:[\s$*]|\\[()\[\]])*"
_JOINED = re.compile(
    rf"{_BESIDE}(?:\\text\{{)?\s*(?:[;/]|,?\s*(?:and|or|und|oder|et|ou|y|o|и|или)\b|,|和|或|または)\s*\}}?{_BESIDE}",
    re.IGNORECASE,
)
_GOES_ON = re.compile(r"\s*(?:,|;|/|=|or\b|and\b)\s*(?:[$\\\d+-]|x)")
_WORD = re.compile(r"(?<![\\A-Za-z])[^\W\d_]{3,}")
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textrm|textbf|operatorname)\s*\{([^{}]*)\}")
_NAMED = re.compile(r"\s*[A-Za-z]\w{0,20}\s*")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-z]+\}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_MATHS_COMMANDS = """
sin cos tan cot sec csc arcsin arccos arctan log exp sqrt infinity inf and binom frac det max min mod gcd lcm
"""
_MATHS_WORDS = frozenset(_MATHS_COMMANDS.split())


@dataclass(frozen=True)
class Candidate:
    """An answer and the rule that found it."""

    text: str
    rule: str


def find_answer(completion: str) -> Candidate | None:
    """Return the one answer of a completion, or None if it does not commit to one.

    A completion that opens <think> and never closes it has not answered. Of a very long completion only the last
    100,000 characters are read.
    """
    text = composed(completion[-LONGEST_TAIL:])
    _, closing, after = text.rpartition("</think>")
    if closing:
        text = after
    if "<think>" in text:
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
    """Return the answer of a ground truth: after "####" (GSM8K), inside \\boxed{}, inside one $...$, or all of it."""
    truth = composed(truth)
    if hashes := _HASHES.findall(truth):
        return hashes[-1].strip()
    if (boxed := last_boxed(truth)) is not None:
        return boxed.strip()
    dollars = _DOLLARS.fullmatch(truth.strip())
    return _group(dollars).strip() if dollars else truth.strip()


def last_boxed(text: str) -> str | None:
    """Return the content of the last balanced \\boxed{}, with the boxes listed beside it, in one pass over the text.

    Of nested boxes, it returns the innermost.
    """
    if "boxed" not in text and "fbox" not in text:
        return None
    opened: list[tuple[bool, int, int]] = []
    boxes: list[tuple[int, int, int, int]] = []  # where it begins and ends, with its command and without
    for match in _BRACES.finditer(text):
        token = match.group()
        if token == "{":
            opened.append((False, 0, 0))
        elif token.startswith(("\\boxed", "\\fbox")):
            opened.append((True, match.start(), match.end()))
        elif token == "}" and opened:
            boxed, begin, start = opened.pop()
            if boxed and not (boxes and boxes[-1][2] > start):  # not around one that was found already
                boxes.append((begin, match.end(), start, match.start()))
    if not boxes:
        return None
    chosen = [boxes.pop()]
    while boxes and _beside(text, boxes[-1][1], chosen[-1][0]):
        chosen.append(boxes.pop())
    contents = [text[start:end].strip() for _, _, start, end in reversed(chosen)]
    return contents[0] if len(set(contents)) == 1 else ", ".join(contents)


def is_expression(text: str) -> bool:
    """Return True if a text is only mathematics: one line, not long, with a digit or a letter, no words and no box."""
    if len(text) > LONGEST_EXPRESSION or "\n" in text.strip() or "\\boxed" in text:
        return False
    return bool(re.search(r"[\dA-Za-z]", text)) and not words(text)


def words(text: str) -> list[str]:
    """Return the words of a text that are not mathematics, in order; \\text{...} counts as words."""
    bare = _COMMAND.sub(" ", _ENVIRONMENT.sub(" ", _TEXT.sub(r" \1 ", text))) if "\\" in text else text
    return [word for word in _WORD.findall(bare) if word.lower() not in _MATHS_WORDS]


def _after_mark(text: str) -> str | None:
    """Return the text after the last announcement of an answer, up to the end of its sentence."""
    mark = None
    for pattern in (ANNOUNCED_IN_ASCII if text.isascii() else ANNOUNCED, _HEADING):
        for mark_here in pattern.finditer(text):
            mark = mark_here if mark is None or mark_here.end() > mark.end() else mark
    hashes = [found for found in _HASHES.finditer(text) if _is_answer(found[1])]
    if hashes and (mark is None or hashes[-1].start() > mark.start()):
        return hashes[-1][1]
    if mark is None:
        return None
    rest = text[mark.end() : mark.end() + 2 * LONGEST_EXPRESSION]
    leading = _LEADING_DOLLARS.match(rest)
    if leading and _is_answer(_group(leading)) and not _GOES_ON.match(rest, leading.end()):
        return _group(leading)
    rest = rest.lstrip(" \t*")
    end = _SENTENCE_END.search(rest)
    return _REASON.sub("", rest[: end.start()] if end else rest).replace("**", "")


def _is_answer(text: str) -> bool:
    """Return True if a text is one expression, one number with its unit, or one word, and not a heading or a
    sentence.
    """
    if "\\boxed" in text:
        return False
    bare = _CALCULATOR.sub("", text)
    one_word = re.fullmatch(r"\s*[^\W\d_]+\.?\s*", _TEXT.sub(r"\1", bare)) is not None
    return one_word or is_expression(bare) or plain_number(bare) is not None


def _last_dollars(text: str) -> str | None:
    found = list(_DOLLARS.finditer(text))
    while found and not _is_answer(_group(found[-1])):
        found.pop()
    if not found:
        return None
    chosen = [found.pop()]
    while found and _beside(text, found[-1].end(), chosen[-1].start()):
        chosen.append(found.pop())
    contents = [_group(match).strip() for match in reversed(chosen)]
    return contents[0] if len(set(contents)) == 1 else ", ".join(contents)


def _whole(text: str) -> str | None:
    whole = text.strip(" \t\r\n*_")
    return whole.rstrip(".") if whole and "=" not in whole and _is_answer(whole) else None


def _last_line(text: str) -> str | None:
    """Return a last line that is an equation, whole; of "Total cost = 72 dollars", return the right-hand side."""
    lines = text.strip().splitlines()
    if not lines or "=" not in lines[-1] or lines[-1].rstrip().endswith("="):
        return None
    line = lines[-1].strip().removeprefix("=").strip()
    left, _, right = line.rpartition("=")
    number = plain_number(right) is not None
    if is_expression(line) or plain_number(line) is not None or (number and is_expression(left)):
        return line
    return right if _NAMED.fullmatch(left) and (number or is_expression(right)) else None


def _beside(text: str, end: int, start: int) -> bool:
    """Return True if there is at most a comma or an "or" between two answers."""
    return start - end <= LONGEST_JOINT and _JOINED.fullmatch(text, end, start) is not None


def _group(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None)
