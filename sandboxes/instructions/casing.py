"""Instructions of the group change_case: capitals and lower case."""

import re

from gemsmith.sandboxes.instructions.fields import RELATION, holds, whole_number
from gemsmith.sandboxes.instructions.kind import Kind
from gemsmith.sandboxes.instructions.language import is_written_in

_WORD = re.compile(r"""(?:(?!--|\.\.)[^\s,;:?!()\[\]{}<>"“”‘@#$%&])+""")


def english_capital(text: str) -> bool:
    """Check that the text is English and each letter is a capital."""
    return text.isupper() and is_written_in(text, "en")


def english_lowercase(text: str) -> bool:
    """Check that the text is English and no letter is a capital."""
    return text.islower() and is_written_in(text, "en")


def capital_word_frequency(text: str, capital_frequency: int, capital_relation: str) -> bool:
    """Check for at least, or less than, `capital_frequency` words in capitals; a hyphenated word is one, "A" counts."""
    return holds(sum(word.isupper() for word in _WORD.findall(text)), capital_relation, capital_frequency)


KINDS = (
    Kind("change_case:english_capital", english_capital),
    Kind("change_case:english_lowercase", english_lowercase),
    Kind(
        "change_case:capital_word_frequency",
        capital_word_frequency,
        {"capital_frequency": whole_number(), "capital_relation": RELATION},
    ),
)
