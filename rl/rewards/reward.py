"""What every kind of reward is: something that scores a batch of completions within its time limit."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from gemsmith.curation.example import Example

Columns = dict[str, list[Any]]


LARGEST = 1e15
"""What a reward, and its share of the sum, may be in size: float32 holds the squares of a batch of them."""


def columns_of(examples: Sequence[Example], finish: Sequence[str], ids: Sequence[list[int]]) -> Columns:
    """What rewards are told of each completion, by column.

    Args:
        examples: one for each completion; their answer, task, system and earlier turns, and the data section's
            further columns.
        finish: why each completion ended; column `finished` is False where that is not "stop".
        ids: the tokens of each completion, column `completion_ids`.
    """
    names = sorted({name for example in examples for name in example.columns})
    columns: Columns = {name: [example.columns.get(name) for example in examples] for name in names}
    columns["earlier_turns"] = [example.history for example in examples]
    for name in ("answer", "task", "system"):
        columns[name] = [getattr(example, name) for example in examples]
    columns["finished"] = [reason == "stop" for reason in finish]
    columns["completion_ids"] = list(ids)
    return columns


class Reward(Protocol):
    """One named reward of a recipe, opened for a stage. Constructed with (name, config, stage)."""

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """One finite number for each completion, or None where the reward does not apply.

        Raises:
            UserError: the reward is the user's own and failed; the message names it and the sample.
            RunError: it failed otherwise, or was not done within its time limit.
        """

    def close(self) -> None:
        """Give back what the reward holds (processes, memory)."""


def shortened(text: str, length: int = 80) -> str:
    """A text on one line, quoted, and cut in its middle when it is long."""
    if len(text) > length:
        half = length // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return repr(text)


def sample(index: int, prompts: Sequence[str], completions: Sequence[str]) -> str:
    """How a message names one sample of a batch."""
    return f"sample {index} (prompt {shortened(prompts[index])}, completion {shortened(completions[index])})"


def first_not_finite(scores: Sequence[float | None]) -> int | None:
    """Index of the first score that is NaN or infinite, or None."""
    return next((i for i, score in enumerate(scores) if score is not None and not math.isfinite(score)), None)
