"""A policy's answers: one row per prompt, kept in a file so that a finished policy is not sampled again."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gemsmith.contracts.reading import reading
from gemsmith.contracts.stage import write_atomically


@dataclass(frozen=True)
class Answer:
    """One completion with its measurements.

    `tokens` counts the end token; `ended` is False if the length limit cut the completion. `reward` is the weighted
    sum, `rewards` its parts (None: not applicable). The log-probabilities of the whole completion are in nats, at
    temperature 1, under the policy itself and under the initial one; a greedy completion has none.
    """

    text: str
    tokens: int
    ended: bool
    reward: float
    rewards: dict[str, float | None]
    logprob: float | None = None
    initial_logprob: float | None = None

    def decisive(self, passes: Sequence[str]) -> float | None:
        """Return the value of the first of these rewards that applies; None if none does."""
        return next((value for name in passes if (value := self.rewards[name]) is not None), None)

    def passed(self, passes: Sequence[str]) -> bool | None:
        """Return True if the first of these rewards that applies is at least 1; None if none applies."""
        value = self.decisive(passes)
        return None if value is None else value >= 1.0


@dataclass(frozen=True)
class AnsweredPrompt:
    """A prompt, its ground truth, the answers of one policy, and the task of its row."""

    prompt: str
    answer: str | None
    greedy: Answer
    sampled: list[Answer]
    task: str | None = None


def save_rows(rows: Sequence[AnsweredPrompt], path: Path) -> None:
    """Write one policy's rows as JSON lines, atomically."""
    write_atomically(path, "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))


def load_rows(path: Path, prompts: Sequence[str], samples: int) -> list[AnsweredPrompt] | None:
    """Return the rows of an earlier attempt; None if there are none or they belong to other prompts."""
    if not path.is_file():
        return None
    with (
        reading(path, "the answers of a policy", "delete it, and run the same command again"),
        path.open(encoding="utf-8") as file,
    ):
        rows = [_row(json.loads(line)) for line in file]
    same = [row.prompt for row in rows] == list(prompts) and all(len(row.sampled) == samples for row in rows)
    return rows if same else None


def _row(fields: dict[str, Any]) -> AnsweredPrompt:
    answers = [Answer(**answer) for answer in fields.pop("sampled")]
    return AnsweredPrompt(greedy=Answer(**fields.pop("greedy")), sampled=answers, **fields)
