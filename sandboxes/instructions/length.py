"""Instructions of the group length_constraints: numbers of words, sentences and paragraphs."""

import re

from gemsmith.sandboxes.instructions.fields import RELATION, holds, phrase, whole_number
from gemsmith.sandboxes.instructions.kind import Kind
from gemsmith.sandboxes.instructions.sentences import count_sentences

_WORD = re.compile(r"\w+")
_FIRST_WORD = re.compile(r"""\s*'*"*([^.,?!'"\s]*)""")


def number_words(text: str, num_words: int, relation: str) -> bool:
    """Check for at least, or less than, `num_words` runs of letters, digits and underscores: "don't" is two."""
    return holds(len(_WORD.findall(text)), relation, num_words)


def number_sentences(text: str, num_sentences: int, relation: str) -> bool:
    """Check for at least, or less than, `num_sentences` sentences."""
    return holds(count_sentences(text), relation, num_sentences)


def number_paragraphs(text: str, num_paragraphs: int) -> bool:
    """Check for exactly `num_paragraphs` paragraphs with *** between them, none of them blank."""
    return len(separated(text, "***")) == num_paragraphs


def nth_paragraph_first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Check for exactly `num_paragraphs` paragraphs separated by a blank line, whose n-th (from 1) starts with the
    word.
    """
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]
    if len(paragraphs) != num_paragraphs or nth_paragraph > num_paragraphs:
        return False
    found = _FIRST_WORD.match(paragraphs[nth_paragraph - 1])
    return found is not None and found[1].lower() == first_word.lower()


def separated(text: str, separator: str) -> list[str]:
    """Return the parts between separators; none if one is blank, except before the first and after the last
    separator.
    """
    parts = text.split(separator)
    inner = [part for i, part in enumerate(parts) if part.strip() or 0 < i < len(parts) - 1]
    return inner if all(part.strip() for part in inner) else []


KINDS = (
    Kind("length_constraints:number_words", number_words, {"num_words": whole_number(), "relation": RELATION}),
    Kind(
        "length_constraints:number_sentences",
        number_sentences,
        {"num_sentences": whole_number(), "relation": RELATION},
    ),
    Kind("length_constraints:number_paragraphs", number_paragraphs, {"num_paragraphs": whole_number(1)}),
    Kind(
        "length_constraints:nth_paragraph_first_word",
        nth_paragraph_first_word,
        {"num_paragraphs": whole_number(1), "nth_paragraph": whole_number(1), "first_word": phrase()},
    ),
)
