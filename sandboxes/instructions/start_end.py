"""Instructions of the group startend: beginning and end of the text."""

from gemsmith.sandboxes.instructions.fields import phrase
from gemsmith.sandboxes.instructions.kind import Kind


def end_checker(text: str, end_phrase: str) -> bool:
    """Check that the text ends with the phrase; case, and quotation marks around the text, are ignored."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(text: str) -> bool:
    """Check that the whole text is in double quotation marks."""
    body = text.strip()
    return len(body) > 1 and body[0] == body[-1] == '"'


KINDS = (
    Kind("startend:end_checker", end_checker, {"end_phrase": phrase(longest=None)}),
    Kind("startend:quotation", quotation),
)
