"""What each reward contributes to what is learnt from a step's completions: normalised, clipped, gated, weighted."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gemsmith.rl.rewards.config import RewardConfig

Raw = Mapping[str, Sequence[float | None]]
"""Each reward's value of every completion of a step, as it came; None: it did not apply."""

ALIKE = 1e-6
"""A standard deviation up to this share of the mean (or of 1) is float32's rounding, and no difference."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of the values so far (Welford 1962: exact where all are equal)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def including(self, values: Iterable[float]) -> "Moments":
        """The moments of these values as well, in their order."""
        count, mean, squares = self.count, self.mean, self.squares
        for value in values:
            count += 1
            before = value - mean
            mean += before / count
            squares += before * (value - mean)
        return Moments(count, mean, squares)

    @property
    def std(self) -> float:
        """Population standard deviation; 0 of no values."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0

    def standardised(self, value: float) -> float:
        """(value - mean) / standard deviation, or 0 where the values are all alike."""
        return (value - self.mean) / self.std if self.std > ALIKE * max(1.0, abs(self.mean)) else 0.0


@dataclass(frozen=True)
class Composed:
    """What a step's rewards come to.

    `total` is what is learnt, of every completion. `counted` says of each reward where it counted: it applied and its
    gate was open. `running` holds the moments of the rewards that are normalised by all completions so far.
    """

    total: list[float]
    counted: dict[str, list[bool]]
    running: dict[str, Moments]


def compose(
    terms: Mapping[str, RewardConfig],
    raw: Raw,
    prompt: Sequence[int],
    task: Sequence[str | None],
    running: Mapping[str, Moments],
) -> Composed:
    """Sum what each reward contributes to each completion of a step.

    A reward counts where it gave a value and its gate is open; there it contributes weight * clip(normalised value),
    and its mean and standard deviation are of these values. Where the gate is closed, it contributes the least of its
    contributions in the step, at most 0: no open gate is worse. Where it did not apply, it contributes 0.

    Args:
        terms: configuration of each reward, in the order of the sum; no gate is missing or in a cycle.
        raw: of all completions of the step, over all processes and all sets of weights.
        prompt: which prompt of the step each completion answers; the groups of `normalise: group`.
        task: of each completion's row.
        running: from the steps before; a reward that is missing has none.
    """
    total, counted, after = [0.0] * len(prompt), {}, dict(running)
    for name, term in terms.items():
        is_open = open_gates(terms, raw, name)
        values = {i: value for i, value in enumerate(raw[name]) if value is not None and is_open[i]}
        if term.normalise == "running":
            after[name] = running.get(name, Moments()).including(values.values())
        shaped = _clipped(term, _normalised(term, values, prompt, after.get(name, Moments())))
        given = {i: term.weight * value for i, value in shaped.items()}
        least = min([0.0, *given.values()])
        closed = {i: least for i, of in enumerate(task) if term.applies_to(of) and not is_open[i]}
        total = [t + given.get(i, closed.get(i, 0.0)) for i, t in enumerate(total)]
        counted[name] = [i in given for i in range(len(prompt))]
    return Composed(total, counted, after)


def open_gates(terms: Mapping[str, RewardConfig], raw: Raw, name: str) -> list[bool]:
    """Of each completion, whether the reward's gate gave more than `gate_above`, and the gate's own gate is open."""
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
