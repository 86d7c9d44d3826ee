"""One example of a data set, independent of its source and its use."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Example:
    """A prompt, and those of the other fields that the data section sets.

    Attributes:
        prompt: text of the user's turn, the last one of a conversation.
        system: system text.
        answer: ground truth for verifiers.
        demonstration: a completion to imitate.
        chosen: the preferred completion of a pair.
        rejected: the other completion of the pair.
        task: name that routes rewards.
        columns: further columns for reward functions.
        where: place of the row in its source, for messages; not part of the example's identity.
        history: role ("user" or "assistant") and text of each turn before the prompt.
    """

    prompt: str
    system: str | None = None
    answer: str | None = None
    demonstration: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    task: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    where: str = field(default="", compare=False)
    history: tuple[tuple[str, str], ...] = ()

    @property
    def messages(self) -> list[dict[str, str]]:
        """Return the conversation up to the completion: system text, if any, earlier turns, and the user's turn."""
        system = [] if self.system is None else [("system", self.system)]
        turns = [*system, *self.history, ("user", self.prompt)]
        return [{"role": role, "content": text} for role, text in turns]

    @property
    def conversation(self) -> str:
        """Return the text of all turns up to the completion, with normalised white space; it identifies a prompt."""
        return " ".join(" ".join([*(text for _, text in self.history), self.prompt]).split())


def unique_prompts(examples: Iterable[Example]) -> list[Example]:
    """Return the first example of each prompt (with its system text and earlier turns), in order."""
    first: dict[Any, Example] = {}
    for example in examples:
        first.setdefault((example.system, example.history, example.prompt), example)
    return list(first.values())
