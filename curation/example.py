"""One example of a data set, whatever it came from and whatever it is used for."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Example:
    """A prompt, and whichever of the other fields the data section maps.

    Attributes:
        prompt: text of the user's turn.
        system: system text.
        answer: ground truth for verifiers.
        demonstration: a completion to imitate.
        chosen: the preferred completion of a pair.
        rejected: the other completion of the pair.
        task: name that routes rewards.
        columns: further columns for reward functions.
        where: where its row stands in its source, for messages; it makes no other example of it.
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

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation up to the completion: system text, if any, and the user's turn."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": self.prompt}]


def unique_prompts(examples: Iterable[Example]) -> list[Example]:
    """The first example of each prompt (with its system text), in order."""
    first: dict[tuple[str | None, str], Example] = {}
    for example in examples:
        first.setdefault((example.system, example.prompt), example)
    return list(first.values())
