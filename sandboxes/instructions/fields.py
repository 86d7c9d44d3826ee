"""Arguments of instructions, such as numbers or lists of words: each is checked before a text is judged."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LONGEST_PHRASE = 200
"""Maximum length of a keyword; with the number of keywords it bounds the work on a long text."""
MOST_WORDS = 50


@dataclass(frozen=True)
class Field:
    """One keyword argument of an instruction.

    Attributes:
        expected: description of accepted values, for messages.
        read: function that returns the checked value and raises ValueError for another value.
    """

    expected: str
    read: Callable[[object], Any]


def whole_number(lowest: int = 0) -> Field:
    """Return a field for a whole number; accepts 3.0, because tables turn a column with gaps into floats."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < lowest:
            raise ValueError
        return int(value)

    return Field(f"a whole number of at least {lowest}", read)


def choice(*options: str) -> Field:
    """Return a field for one of a few words, spelt exactly."""

    def read(value: object) -> str:
        if value not in options:
            raise ValueError
        return str(value)

    return Field(" or ".join(repr(option) for option in options), read)


def phrase(longest: int | None = LONGEST_PHRASE) -> Field:
    """Return a field for a text that is not blank."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not value.strip() or (longest is not None and len(value) > longest):
            raise ValueError
        return value

    return Field("a text that is not blank" + (f", of at most {longest} characters" if longest else ""), read)


def words() -> Field:
    """Return a field for a list of words or phrases."""
    word = phrase()

    def read(value: object) -> list[str]:
        if not isinstance(value, list | tuple) or not 0 < len(value) <= MOST_WORDS:
            raise ValueError
        return [word.read(item) for item in value]

    return Field(f"a list of 1 to {MOST_WORDS} words, none blank or longer than {LONGEST_PHRASE} characters", read)


def character() -> Field:
    """Return a field for a single character that is not blank."""

    def read(value: object) -> str:
        if not isinstance(value, str) or len(value.strip()) != 1:
            raise ValueError
        return value.strip()

    return Field("one character", read)


RELATION = choice("at least", "less than")


def holds(count: int, relation: str, bound: int) -> bool:
    """Return True if a count is in a `RELATION` to a bound."""
    return count >= bound if relation == "at least" else count < bound
