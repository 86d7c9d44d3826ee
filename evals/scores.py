"""The table of scores, and the samples that a report shows, from the rows of each policy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.intervals import paired_difference
from gemsmith.evals.rows import Answer, AnsweredPrompt


class RowScorer:
    """Computes the project's metrics on rows; every interval is over prompts."""

    def __init__(self, passes: Sequence[str], scratch: Path) -> None:
        """Create a scorer; `scratch` is a folder for the files of the `evaluate` library."""
        from gemsmith.evals.metrics import KLToInitial, MeanReward, PassRate  # `evaluate` takes seconds to import

        options = {"keep_in_memory": True, "cache_dir": str(scratch)}
        self._rate, self._mean, self._kl = PassRate(**options), MeanReward(**options), KLToInitial(**options)
        self._passes = passes

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
        each = {name: self._reward(sampled, _part(name)) for name in rows[0].greedy.rewards}
        return {
            "stage": stage,
            "pass_rate": self._pass_rate(sampled),
            "greedy_pass_rate": self._pass_rate(greedy),
            "reward": self._reward(sampled, lambda answer: answer.reward),
            "rewards": {name: interval for name, interval in each.items() if interval is not None},
            "kl": self._kl.compute(
                predictions=[answer.logprob for _, answer in sampled],
                references=[answer.initial_logprob for _, answer in sampled],
                prompts=[number for number, _ in sampled],
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
            "reward": self._reward(sampled, lambda answer: answer.reward),
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
        return self._rate.compute(predictions=values, prompts=numbers) if values else None

    def _reward(
        self, answers: Sequence[tuple[int, Answer]], value: Callable[[Answer], float | None]
    ) -> dict[str, float] | None:
        """Return a reward's mean and interval. If all values are 0 or 1, the interval is that of a rate."""
        numbers, values = _applicable(answers, value)
        if values and set(values) <= {0.0, 1.0}:
            return self._rate.compute(predictions=values, prompts=numbers)
        return self._interval(answers, value)

    def _interval(
        self, answers: Sequence[tuple[int, Answer]], value: Callable[[Answer], float | None]
    ) -> dict[str, float] | None:
        numbers, values = _applicable(answers, value)
        return self._mean.compute(predictions=values, prompts=numbers) if values else None

    def differences(self, rows: Mapping[str, Sequence[AnsweredPrompt]]) -> list[dict[str, Any]]:
        """Return the entries of `differences` in scores.json: each policy against each earlier one, paired by prompt.

        The policies answered the same prompts with the same seeds. There is one entry for all rows, whose `task` is
        None, and one for each task where a reward decides what passes.
        """
        first = next(iter(rows.values()))
        tasks = [None, *sorted({row.task for row in first if row.task is not None})]
        names = list(rows)
        pairs = [(stage, than) for number, stage in enumerate(names) for than in names[:number]]
        entries = [
            {
                "stage": stage,
                "than": than,
                "task": task,
                "pass_rate": self._difference(rows[stage], rows[than], task, self._passed),
                "reward": self._difference(rows[stage], rows[than], task, lambda answer: answer.reward),
            }
            for stage, than in pairs
            for task in tasks
        ]
        return [entry for entry in entries if entry["pass_rate"] is not None]

    def _passed(self, answer: Answer) -> float | None:
        decisive = answer.decisive(self._passes)
        return None if decisive is None else float(decisive >= 1.0)

    def _difference(
        self,
        rows: Sequence[AnsweredPrompt],
        others: Sequence[AnsweredPrompt],
        task: str | None,
        value: Callable[[Answer], float | None],
    ) -> dict[str, Any] | None:
        prompts, values = _applicable(_sampled(rows, task), value)
        other_prompts, other_values = _applicable(_sampled(others, task), value)
        found = paired_difference(values, prompts, other_values, other_prompts)
        return None if found is None else asdict(found)


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


def _sampled(rows: Sequence[AnsweredPrompt], task: str | None) -> list[tuple[int, Answer]]:
    """Return the sampled answers with their prompts' numbers; of one task, or of all rows if `task` is None."""
    chosen = [(number, row) for number, row in enumerate(rows) if task is None or row.task == task]
    return [(number, answer) for number, row in chosen for answer in row.sampled]


def _part(name: str) -> Callable[[Answer], float | None]:
    return lambda answer: answer.rewards[name]


def _applicable(
    answers: Sequence[tuple[int, Answer]], value: Callable[[Answer], float | None]
) -> tuple[list[int], list[float]]:
    found = [(number, value(answer)) for number, answer in answers]
    return [number for number, one in found if one is not None], [one for _, one in found if one is not None]
