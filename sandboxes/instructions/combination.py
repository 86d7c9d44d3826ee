"""Instructions of the group combination: the prompt repeated, or two answers."""

from gemsmith.sandboxes.instructions.fields import phrase
from gemsmith.sandboxes.instructions.kind import Kind
from gemsmith.sandboxes.instructions.length import separated


def repeat_prompt(text: str, prompt_to_repeat: str) -> bool:
    """Check that the text starts with the prompt; case is ignored."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def two_responses(text: str) -> bool:
    """Check for two different answers with ****** between them."""
    answers = [part.strip() for part in separated(text, "******")]
    return len(answers) == 2 and answers[0] != answers[1]


KINDS = (
    Kind("combination:repeat_prompt", repeat_prompt, {"prompt_to_repeat": phrase(longest=None)}),
    Kind("combination:two_responses", two_responses),
)
