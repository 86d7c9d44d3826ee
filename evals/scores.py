"""The table of scores, and the samples that a report shows, from the rows of each policy."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.evals.rows import Answer, AnsweredPrompt


class RowScorer:
    """Computes the project's metrics on rows; every interval is a bootstrap over prompts with one seed."""

    def __init__(self, passes: Sequence[str], seed: int, scratch: Path) -> None:
        """Create a scorer; `scratch` is a folder for the files of the `evaluate` library."""
        from gemsmith.evals.metrics import KLToInitial, MeanReward, PassRate  # `evaluate` takes seconds to import

        options = {"keep_in_memory": True, "cache_dir": str(scratch)}
        self._rate, self._mean, self._kl = PassRate(**options), MeanReward(**options), KLToInitial(**options)
        self._passes, self._seed = passes, seed

    def policy_scores(self, stage: str, rows: Sequence[AnsweredPrompt]) -> dict[str, Any]:
        """Return one entry of `policies` in scores.json; a reward that applies to no completion has no entry in
        `rewards`.

        `by_task` has the rows of each task separately; rows without a task are left out.
        """
        numbered = list(enumerate(rows))
        tasks = sorted({row.task for row in rows if row.task is not None})
        by_task = {task: self._task_scores([(n, row) for n, row in numbered if row.task == task]) for task in tasks}
        sampled = [(number, answer) for number, row in enumerate(rows) for answer in row.sampled]
        greedy = [(number, row.greedy) for number, row in enumerate(rows)]
        each = {name: self._interval(sampled, _part(name)) for name in rows[0].greedy.rewards}
        return {
            "stage": stage,
            "pass_rate": self._pass_rate(sampled),
            "greedy_pass_rate": self._pass_rate(greedy),
            "reward": self._interval(sampled, lambda answer: answer.reward),
            "rewards": {name: interval for name, interval in each.items() if interval is not None},
            "kl": self._kl.compute(
                predictions=[answer.logprob for _, answer in sampled],
                references=[answer.initial_logprob for _, answer in sampled],
                prompts=[number for number, _ in sampled],
                seed=self._seed,
            ),
            "length": self._interval(sampled, lambda answer: float(answer.tokens)),
            "ended": sum(answer.ended for _, answer in sampled) / len(sampled),
            "by_task": by_task,
        }

    def _task_scores(self, rows: Sequence[tuple[int, AnsweredPrompt]]) -> dict[str, Any]:
        """Return the number of prompts of a task, its rates and reward; a rate is None if no reward decides what
        passes.
        """
        sampled = [(number, answer) for number, row in rows for answer in row.sampled]
        return {
            "prompts": len(rows),
            "pass_rate": self._rate_of(sampled),
            "greedy_pass_rate": self._rate_of([(number, row.greedy) for number, row in rows]),
            "reward": self._interval(sampled, lambda answer: answer.reward),
        }

    def _pass_rate(self, answers: Sequence[tuple[int, Answer]]) -> dict[str, float]:
        rate = self._rate_of(answers)
        if rate is None:
            raise UserError(
                f"reward `{', '.join(self._passes)}`, which decides what passes, applies to no prompt of the "
                "evaluation: give the data an `answer`, or set `passes` to another reward"
            )
        return rate

    def _rate_of(self, answers: Sequence[tuple[int, Answer]]) -> dict[str, float] | None:
        numbers, values = _applicable(answers, lambda answer: answer.decisive(self._passes))
        return self._rate.compute(predictions=values, prompts=numbers, seed=self._seed) if values else None

    def _interval(
        self, answers: Sequence[tuple[int, Answer]], value: Callable[[Answer], float | None]
    ) -> dict[str, float] | None:
        numbers, values = _applicable(answers, value)
        return self._mean.compute(predictions=values, prompts=numbers, seed=self._seed) if values else None


def shown_samples(
    rows: Mapping[str, Sequence[AnsweredPrompt]], passes: Sequence[str], shown: int
) -> list[dict[str, Any]]:
    """Return the rows of samples.jsonl: the first `shown` prompts with the answers of every policy side by side."""
    first = next(iter(rows.values()))
    return [
        {
            "prompt": first[number].prompt,
            "answer": first[number].answer,
            "policies": {stage: _shown(rows[stage][number], passes) for stage in rows},
        }
        for number in range(min(shown, len(first)))
    ]


def _shown(row: AnsweredPrompt, passes: Sequence[str]) -> dict[str, Any]:
    return {
        "greedy": {"text": row.greedy.text, "pass": row.greedy.passed(passes)},
        "sampled": [
            {"text": answer.text, "pass": answer.passed(passes), "reward": answer.reward} for answer in row.sampled
        ],
    }


def _part(name: str) -> Callable[[Answer], float | None]:
    return lambda answer: answer.rewards[name]


def _applicable(
    answers: Sequence[tuple[int, Answer]], value: Callable[[Answer], float | None]
) -> tuple[list[int], list[float]]:
    found = [(number, value(answer)) for number, answer in answers]
    return [number for number, one in found if one is not None], [one for _, one in found if one is not None]
