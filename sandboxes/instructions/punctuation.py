"""Instructions of the group punctuation: the comma."""

from gemsmith.sandboxes.instructions.kind import Kind


def no_comma(text: str) -> bool:
    """Check that the text has no comma; commas of other scripts are allowed."""
    return "," not in text


KINDS = (Kind("punctuation:no_comma", no_comma),)
