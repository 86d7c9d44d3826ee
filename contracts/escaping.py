"""Text of users, files and models made visible before it reaches a terminal or a page."""

import re

# C0 and C1 controls, which terminals obey (a window title, a colour, a cleared screen), and marks that reorder text.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069]")


def visible(text: str, keep: str = "\n\t") -> str:
    r"""Return the text with control characters written out, such as `\x1b`; letters of all languages and emoji stay.

    Args:
        text: any text.
        keep: control characters to leave as they are.
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else _written_out(found[0]), text)


def _written_out(character: str) -> str:
    return repr(character)[1:-1]
