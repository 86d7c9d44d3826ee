"""punctuation: the comma."""

from gemsmith.sandboxes.instructions.kind import Kind


def no_comma(text: str) -> bool:
    """The text has no comma; those of other scripts are allowed."""
    return "," not in text


KINDS = (Kind("punctuation:no_comma", no_comma),)
