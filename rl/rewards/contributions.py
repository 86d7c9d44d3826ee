"""Composition of a step's rewards into the value that the policy learns from: normalise, clip, gate, weight, sum."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gemsmith.rl.rewards.config import RewardConfig

Raw = Mapping[str, Sequence[float | None]]
"""Raw value of each completion of a step, by reward name; None where the reward did not apply."""

ALIKE = 1e-6
"""Largest standard deviation, relative to max(1, |mean|), that is attributed to float32 rounding and treated as 0."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of a series (Welford 1962; exact if all values are equal)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def including(self, values: Iterable[float]) -> "Moments":
        """Return the moments of the series with these values appended."""
        count, mean, squares = self.count, self.mean, self.squares
        for value in values:
            count += 1
            before = value - mean
            mean += before / count
            squares += before * (value - mean)
        return Moments(count, mean, squares)

    @property
    def std(self) -> float:
        """Return the population standard deviation; 0 for an empty series."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0

    def standardised(self, value: float) -> float:
        """Return (value - mean) / standard deviation, or 0 if all values are equal up to rounding."""
        return (value - self.mean) / self.std if self.std > ALIKE * max(1.0, abs(self.mean)) else 0.0


@dataclass(frozen=True)
class Composed:
    """Composed rewards of a step.

    Attributes:
        total: value of each completion that the policy learns from.
        counted: by reward, true for each completion where the reward applied and its gate was open.
        running: moments of the rewards with `normalise: running`, including this step.
        spread: by reward, the mean over prompts of the variance of its contributions to the prompt's completions. This
            is what advantages and rankings are made of; a reward's mean has no effect on them.
    """

    total: list[float]
    counted: dict[str, list[bool]]
    running: dict[str, Moments]
    spread: dict[str, float]


def compose(
    terms: Mapping[str, RewardConfig],
    raw: Raw,
    prompt: Sequence[int],
    task: Sequence[str | None],
    running: Mapping[str, Moments],
    finished: Sequence[bool] | None = None,
) -> Composed:
    """Sum the contributions of all rewards to each completion of a step.

    A reward counts where it has a value and its gate is open; it contributes weight * clip(normalised value) there, and
    only these values enter its mean and standard deviation. Where its gate is closed, it contributes its smallest
    contribution in the step, at most 0, so that an open gate is never worse. Where it does not apply, it contributes 0.
    A completion that was cut off and is left out (`cut_off: none`) gets the mean contribution to the prompt's other
    completions, or to all of the step if there are none: nothing is learned from its having been cut off.

    Args:
        terms: configuration of each reward, in the order of the sum, with valid gates (see `gate_fault`).
        raw: raw rewards of all completions of the step, over all processes and all sets of weights.
        prompt: index of the prompt of each completion, which defines the groups of `normalise: group`.
        task: task of each completion's row.
        running: moments after the step before; a missing reward starts from none.
        finished: false for each completion that was cut off. Default: all are finished.
    """
    total, counted, after = [0.0] * len(prompt), {}, dict(running)
    spread: dict[str, float] = {}
    for name, term in terms.items():
        # `values`, `shaped` and `given` have the same keys: the completions where the reward counts.
        is_open = open_gates(terms, raw, name)
        values = {i: value for i, value in enumerate(raw[name]) if value is not None and is_open[i]}
        if term.normalise == "running":
            after[name] = running.get(name, Moments()).including(values.values())
        shaped = _clipped(term, _normalised(term, values, prompt, after.get(name, Moments())))
        given = {i: term.weight * value for i, value in shaped.items()}
        least = min([0.0, *given.values()])
        closed = {i: least for i, its_task in enumerate(task) if term.applies_to(its_task) and not is_open[i]}
        left_out = term.left_out({"task": task, "finished": [True] * len(prompt) if finished is None else finished})
        neutral = _neutral(given, prompt, [i for i in range(len(prompt)) if left_out[i]])
        added = [given.get(i, neutral.get(i, closed.get(i, 0.0))) for i in range(len(prompt))]
        total = [t + value for t, value in zip(total, added, strict=True)]
        counted[name] = [i in given for i in range(len(prompt))]
        spread[name] = _spread(added, prompt)
    return Composed(total, counted, after, spread)


def _spread(added: Sequence[float], prompt: Sequence[int]) -> float:
    """Return the mean over prompts of the population variance of the contributions to the prompt's completions."""
    by_prompt: dict[int, list[float]] = defaultdict(list)
    for number, value in zip(prompt, added, strict=True):
        by_prompt[number].append(value)
    return sum(Moments().including(values).std ** 2 for values in by_prompt.values()) / max(len(by_prompt), 1)


def _neutral(given: Mapping[int, float], prompt: Sequence[int], left_out: Sequence[int]) -> dict[int, float]:
    """Return the mean contribution to the other completions of each left-out completion's prompt, or to all."""
    by_prompt: dict[int, list[float]] = defaultdict(list)
    for i, value in given.items():
        by_prompt[prompt[i]].append(value)
    whole = sum(given.values()) / len(given) if given else 0.0
    means = {number: sum(values) / len(values) for number, values in by_prompt.items()}
    return {i: means.get(prompt[i], whole) for i in left_out}


def open_gates(terms: Mapping[str, RewardConfig], raw: Raw, name: str) -> list[bool]:
    """Return, for each completion, True if the reward's gate exceeds `gate_above` and the gate's own gate is open."""
    term = terms[name]
    if term.gate is None:
        return [True] * len(raw[name])
    before = open_gates(terms, raw, term.gate)
    return [
        is_open and value is not None and value > term.gate_above
        for is_open, value in zip(before, raw[term.gate], strict=True)
    ]


def _normalised(
    term: RewardConfig, values: dict[int, float], prompt: Sequence[int], so_far: Moments
) -> dict[int, float]:
    if term.normalise == "none":
        return values
    if term.normalise == "running":
        return {i: so_far.standardised(value) for i, value in values.items()}
    group = {i: prompt[i] if term.normalise == "group" else 0 for i in values}
    together: dict[int, list[float]] = defaultdict(list)
    for i, value in values.items():
        together[group[i]].append(value)
    moments = {number: Moments().including(members) for number, members in together.items()}
    return {i: moments[group[i]].standardised(value) for i, value in values.items()}


def _clipped(term: RewardConfig, values: dict[int, float]) -> dict[int, float]:
    if term.clip is None:
        return values
    low, high = term.clip
    return {i: min(max(value, low), high) for i, value in values.items()}
