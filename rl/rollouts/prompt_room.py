"""Keep the prompts after which a completion of `sampling.max_tokens` still fits in `max_length`."""

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
    """Return the items whose prompts leave room for a completion, and report how many are dropped.

    Args:
        items: examples, or whatever has a prompt.
        prompt_tokens: the length of an item's prompt.
        data: name of the data section, for messages.
        max_length: tokens that a prompt and its completion may have.
        max_tokens: tokens that a completion may have.
        say: called with one line where prompts are dropped.
        whose: what an item is called in the error.

    Raises:
        UserError: no prompt is short enough.
    """
    room = max_length - max_tokens
    fitting = [item for item in items if prompt_tokens(item) <= room]
    if not fitting:
        raise UserError(
            f"data.{data}: every {whose} is longer than max_length - sampling.max_tokens = {max_length} - {max_tokens} "
            f"= {room} tokens: raise the one or lower the other"
        )
    if len(fitting) < len(items):
        say(f"data.{data}: dropped {len(items) - len(fitting)} {whose}s longer than {room} tokens")
    return fitting
