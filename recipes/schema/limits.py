"""Limits of a recipe's size, depth and numbers, checked before the document is built: a small file can ask for much.

YAML's aliases repeat a node by its name, so ten short lines can stand for billions of values. The check reads the
parser's events, one after the other, and builds nothing.
"""

import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    MappingStartEvent,
    ScalarEvent,
)

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.planning import Keys

MOST_BYTES = 200_000
MOST_VALUES = 20_000
"""Values of the document, with each alias counted as what it stands for."""
MOST_DEPTH = 32
MOST_DIGITS = 18
"""Digits of a whole number: the largest that fits 64 bits whatever its first digit."""
MOST_KEY = 200
"""Characters of a key; names of stages and recipes, which become folders, are shorter (100)."""
_WHOLE = re.compile(r"[-+]?(0[xob])?[0-9a-fA-F_]+")


def check_text(text: str, where: str, line: int | None = None) -> None:
    """Reject a YAML text that is too large, too deep, repeats itself without end, or has numbers or keys too long.

    Args:
        text: the text to check.
        where: the file, or the option that the text belongs to, for messages.
        line: number of the text's first line, if messages are to name lines.

    Raises:
        UserError: one sentence that names the place, what was found and what is accepted.
        YAMLError: the text is not YAML.
    """
    if len(text) > MOST_BYTES:
        raise UserError(f"{where}: found {len(text):,} characters, expected at most {MOST_BYTES:,}")
    open_counts: list[int] = []  # values below each open mapping or list so far, itself included
    open_anchors: list[str | None] = []
    anchors: dict[str, int] = {}  # values that an alias of the name stands for
    keys: list[bool | None] = []  # True where a mapping's next node is a key; None in a list
    total = 0

    def fail(event: Any, problem: str) -> None:
        place = where if line is None else f"{where}:{event.start_mark.line + line}"
        raise UserError(f"{place}: {problem}")

    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, CollectionEndEvent):
            size, anchor = open_counts.pop(), open_anchors.pop()
            keys.pop()
            if anchor is not None:
                anchors[anchor] = size
            if open_counts:
                open_counts[-1] += size
        elif isinstance(event, AliasEvent):
            if event.anchor in open_anchors:
                fail(event, f"the alias *{event.anchor} is inside the node that it stands for; write the value out")
            size = anchors.get(event.anchor, 1)
            total += size
            if open_counts:
                open_counts[-1] += size
        elif isinstance(event, CollectionStartEvent):
            total += 1
            open_counts.append(1)
            open_anchors.append(event.anchor)
        elif isinstance(event, ScalarEvent):
            total += 1
            if event.anchor is not None:
                anchors[event.anchor] = 1
            if open_counts:
                open_counts[-1] += 1
            if event.implicit[0] and (problem := _number_fault(event.value)):
                fail(event, problem)
            if keys and keys[-1] and len(event.value) > MOST_KEY:
                fail(event, f"found a key of {len(event.value):,} characters, expected at most {MOST_KEY}")
        else:
            continue
        if len(open_counts) > MOST_DEPTH:
            fail(event, f"found more than {MOST_DEPTH} nested mappings and lists, expected at most that")
        if total > MOST_VALUES:
            fail(event, f"found more than {MOST_VALUES:,} values (aliases count as what they stand for), expected less")
        # A mapping's nodes are key and value in turn; a nested node counts when it begins.
        if isinstance(event, CollectionStartEvent):
            if len(keys) and keys[-1] is not None:
                keys[-1] = not keys[-1]
            keys.append(True if isinstance(event, MappingStartEvent) else None)
        elif isinstance(event, ScalarEvent | AliasEvent) and keys and keys[-1] is not None:
            keys[-1] = not keys[-1]


def check_value(value: Any, label: str, keys: Keys, seen: list[int]) -> None:
    """Reject a value of a recipe that is a Python mapping if it lies too deep, is one of too many, or is too long.

    Args:
        value: the value; its items are checked when the caller comes to them.
        label: the recipe or the option, for messages.
        keys: place of the value.
        seen: number of values so far, as the list's one item; raised by one.

    Raises:
        UserError: one sentence that names the place, what was found and what is accepted.
    """
    seen[0] += 1
    if len(keys) > MOST_DEPTH:
        raise UserError(f"{label}: found more than {MOST_DEPTH} nested mappings and lists, expected at most that")
    if seen[0] > MOST_VALUES:
        raise UserError(f"{label}: found more than {MOST_VALUES:,} values, expected at most that")
    if keys and isinstance(keys[-1], str) and len(keys[-1]) > MOST_KEY:
        raise UserError(f"{label}: found a key of {len(keys[-1]):,} characters, expected at most {MOST_KEY}")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**MOST_DIGITS:
        raise UserError(f"{label}: found a whole number of more than {MOST_DIGITS} digits, expected at most that")
    if isinstance(value, str) and len(value) > MOST_BYTES:
        raise UserError(f"{label}: found a text of {len(value):,} characters, expected at most {MOST_BYTES:,}")


def _number_fault(text: str) -> str | None:
    """Return what is wrong with a plain scalar if it is a whole number with too many digits."""
    if len(text) <= MOST_DIGITS or not _WHOLE.fullmatch(text) or not text.lstrip("+-")[:1].isdecimal():
        return None
    digits = sum(letter != "_" for letter in text.lstrip("+-"))
    if digits <= MOST_DIGITS:
        return None
    return f"found a whole number of {digits:,} digits, expected at most {MOST_DIGITS}"
