"""Filter for prompts that leave room for `sampling.max_tokens` completion tokens within `max_length`."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from gemsmith.contracts.errors import UserError

Item = TypeVar("Item")


def with_room(
    items: Sequence[Item],
    prompt_tokens: Callable[[Item], int],
    *,
    data: str,
    max_length: int,
    max_tokens: int,
    say: Callable[[str], None],
    whose: str = "prompt",
) -> list[Item]:
    """Return the items whose prompts leave room for a completion, and report how many were dropped.

    Args:
        items: examples, or other objects that have a prompt.
        prompt_tokens: returns the number of tokens of an item's prompt.
        data: name of the data section, for messages.
        max_length: largest number of tokens of a prompt and its completion together.
        max_tokens: largest number of tokens of a completion.
        say: called with one line if prompts are dropped.
        whose: noun for an item in messages.

    Raises:
        UserError: every prompt is too long.
    """
    room = max_length - max_tokens
    fitting = [item for item in items if prompt_tokens(item) <= room]
    if not fitting:
        raise UserError(
            f"data.{data}: every {whose} is longer than max_length - sampling.max_tokens = {max_length} - {max_tokens} "
            f"= {room} tokens: raise max_length or lower sampling.max_tokens"
        )
    if len(fitting) < len(items):
        say(f"data.{data}: dropped {len(items) - len(fitting)} {whose}s longer than {room} tokens")
    return fitting
