"""Interface of a reward, which scores a batch of completions within its time limit, and helpers for its messages."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from gemsmith.curation.example import Example

Columns = dict[str, list[Any]]


LARGEST = 1e15
"""Largest absolute value of a reward and of its weighted value: the squares of a batch of them fit into float32."""


def columns_of(examples: Sequence[Example], finish: Sequence[str], ids: Sequence[list[int]]) -> Columns:
    """Return the columns that rewards receive, one value per completion.

    Args:
        examples: the example of each completion; it provides `answer`, `task`, `system`, `earlier_turns`, and the data
            section's further columns.
        finish: reason why each completion ended; the column `finished` is False unless it is "stop".
        ids: token ids of each completion, for the column `completion_ids`.
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
    """Reward of a recipe, opened for a stage; constructed with (name, config, stage)."""

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """Return one finite number per completion, or None where the reward does not apply.

        Raises:
            UserError: a user-defined reward failed; the message names the reward and the sample.
            RunError: the reward failed for another reason, or exceeded its time limit.
        """

    def close(self) -> None:
        """Release the reward's resources (processes, memory)."""


def shortened(text: str, length: int = 80) -> str:
    """Quote a text on one line, with its middle replaced by "..." if it is longer than `length`."""
    if len(text) > length:
        half = length // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return repr(text)


def sample(index: int, prompts: Sequence[str], completions: Sequence[str]) -> str:
    """Format one sample of a batch for a message."""
    return f"sample {index} (prompt {shortened(prompts[index])}, completion {shortened(completions[index])})"


def first_not_finite(scores: Sequence[float | None]) -> int | None:
    """Return the index of the first score that is NaN or infinite, or None."""
    return next((i for i, score in enumerate(scores) if score is not None and not math.isfinite(score)), None)
