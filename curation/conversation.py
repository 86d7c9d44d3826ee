"""Columns that hold a conversation, a list of messages with role and content, as chat and preference data sets do."""

from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.curation.sources.rows import SourceRow

Turns = list[tuple[str, str]]
"""Role and text of each turn: an optional "system" turn, then "user" and "assistant" in alternation."""
_ROLES = {"system": "system", "user": "user", "assistant": "assistant", "model": "assistant"}


def conversation_of(value: Any, row: SourceRow, *, name: str, field: str) -> Turns | None:
    """Return the turns of a column's value; None if it is not a list of messages.

    Args:
        value: value of the column.
        row: its row, for messages.
        name: name of the data section, for messages.
        field: name of the section's field that uses the column, for messages.

    Raises:
        UserError: a message has another role or no text, or the roles do not alternate, starting with the user.
    """
    if not (isinstance(value, list) and value and all(isinstance(turn, dict) and "role" in turn for turn in value)):
        return None
    turns: Turns = []
    for number, turn in enumerate(value, start=1):
        role, content = _ROLES.get(turn["role"]), turn.get("content")
        if role is None or not isinstance(content, str):
            raise UserError(
                f"data {name}: `{field}`: message {number} of {row.where} has the role {turn['role']!r} and "
                f"{'no text' if not isinstance(content, str) else 'a text'}; expected the role system, user or "
                "assistant, and its text as `content`."
            )
        turns.append((role, content))
    expected = ["user" if number % 2 == 0 else "assistant" for number in range(len(turns))]
    roles = [role for role, _ in turns[turns[0][0] == "system" :]]
    if roles != expected[: len(roles)] and roles != ["assistant"]:
        raise UserError(
            f"data {name}: `{field}`: the roles of {row.where} are {', '.join(role for role, _ in turns)}; expected "
            "user and assistant in turn, after a system message or none."
        )
    return turns


def up_to_the_user(turns: Turns) -> Turns:
    """Return the turns up to the user's last one, which the completion answers."""
    return turns[:-1] if turns[-1][0] == "assistant" else turns


def answer_of(turns: Turns) -> str | None:
    """Return the assistant's last message; None if the conversation ends with the user."""
    return turns[-1][1] if turns[-1][0] == "assistant" else None
