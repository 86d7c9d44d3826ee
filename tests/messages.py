"""Assertions on the facts of a message (fields, names, values, files), so that its wording can improve."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def missing_facts(message: str, *facts: object) -> list[str]:
    """Return the facts that `message` lacks. A fact matches whole words only: 2 is not found in "12"."""
    flat = " ".join(str(message).split())
    missing = []
    for fact in facts:
        text = " ".join(str(fact).split())
        assert text, "an empty fact is found in every message"
        before = r"(?<!\w)" if re.match(r"\w", text) else ""
        after = r"(?!\w)" if re.search(r"\w$", text) else ""
        if not re.search(before + re.escape(text) + after, flat):
            missing.append(text)
    return missing


def assert_facts(message: object, *facts: object) -> None:
    """Fail unless `message` contains every fact, as whole words, with white space taken as one space."""
    missing = missing_facts(str(message), *facts)
    assert not missing, f"the message lacks {missing}: {message}"


@contextmanager
def raises_facts(
    error: type[BaseException] | tuple[type[BaseException], ...], *facts: object
) -> Iterator[pytest.ExceptionInfo[BaseException]]:
    """Expect the block to raise `error` with a message that contains every fact."""
    assert facts, "name at least one fact"
    with pytest.raises(error) as caught:
        yield caught
    assert_facts(caught.value, *facts)
