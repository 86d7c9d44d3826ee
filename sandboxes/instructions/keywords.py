"""Instructions of the group keywords: required or forbidden words. Keywords are plain text; case is ignored."""

import re

from gemsmith.sandboxes.instructions.fields import RELATION, character, holds, phrase, whole_number, words
from gemsmith.sandboxes.instructions.kind import Kind


def existence(text: str, keywords: list[str]) -> bool:
    """Check that each keyword is in the text, possibly as a part of a longer word."""
    lowered = text.lower()
    return all(keyword.lower() in lowered for keyword in keywords)


def frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    """Check that the keyword occurs at least, or less than, `frequency` times, also within longer words."""
    return holds(text.lower().count(keyword.lower()), relation, frequency)


def forbidden_words(text: str, forbidden_words: list[str]) -> bool:
    """Check that none of the words occurs as a separate word."""
    lowered = text.lower()
    return not any(_has_word(lowered, word.lower()) for word in forbidden_words)


def letter_frequency(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    """Check that the letter (or another character) occurs at least, or less than, `let_frequency` times."""
    return holds(text.lower().count(letter.lower()), let_relation, let_frequency)


def _has_word(lowered: str, word: str) -> bool:
    return word in lowered and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", lowered) is not None


KINDS = (
    Kind("keywords:existence", existence, {"keywords": words()}),
    Kind("keywords:frequency", frequency, {"keyword": phrase(), "frequency": whole_number(), "relation": RELATION}),
    Kind("keywords:forbidden_words", forbidden_words, {"forbidden_words": words()}),
    Kind(
        "keywords:letter_frequency",
        letter_frequency,
        {"letter": character(), "let_frequency": whole_number(), "let_relation": RELATION},
    ),
)
