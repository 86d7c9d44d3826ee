"""The table of an evaluation, read from its `scores.json`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.intervals import Interval
from gemsmith.contracts.suggestions import did_you_mean, listed
from gemsmith.evals.comparison import Gain, gain


@dataclass(frozen=True)
class TaskScores:
    """Scores of one policy on the prompts of one task; a rate is None if no reward decides what passes.

    Attributes:
        prompts: number of prompts of the task.
        pass_rate: share of sampled completions that pass.
        greedy_pass_rate: share of greedy completions that pass.
        reward: mean total reward of sampled completions; None if no reward applies.
    """

    prompts: int
    pass_rate: Interval | None
    greedy_pass_rate: Interval | None
    reward: Interval | None


@dataclass(frozen=True)
class PolicyScores:
    """Scores of one policy.

    An interval has the fields `mean`, `low` and `high`; the bounds are those of the 95% interval over prompts.

    Attributes:
        stage: id of the stage that trained the policy.
        pass_rate: share of sampled completions that pass.
        greedy_pass_rate: share of greedy completions that pass.
        reward: mean total reward of sampled completions; None if no reward applies.
        rewards: mean of each reward that applies.
        kl: KL from the initial policy in nats per completion (the k1 estimator).
        length: tokens per sampled completion.
        ended: share of sampled completions that end with an end token, before the length limit.
        by_task: scores for each task of the data.
    """

    stage: str
    pass_rate: Interval
    greedy_pass_rate: Interval
    reward: Interval | None
    rewards: Mapping[str, Interval]
    kl: Interval | None
    length: Interval | None
    ended: float
    by_task: Mapping[str, TaskScores]


@dataclass(frozen=True)
class Scores:
    """An evaluation of several policies on the same held-out prompts; `scores["sft"]` is one policy's row.

    Attributes:
        prompts: number of prompts.
        samples: sampled completions per prompt, in addition to the greedy one.
        initial: id of the stage whose policy is the reference of the KL.
        passes: names of the rewards that decide what passes; the first one that applies to a row decides.
        policies: one row for each policy, in the order of the recipe.
    """

    prompts: int
    samples: int
    initial: str
    passes: tuple[str, ...]
    policies: tuple[PolicyScores, ...]
    _content: Mapping[str, Any] = field(repr=False, compare=False)

    def __getitem__(self, stage: str) -> PolicyScores:
        for policy in self.policies:
            if policy.stage == stage:
                return policy
        known = [policy.stage for policy in self.policies]
        raise UserError(
            f'found no policy "{stage}" in these scores, expected {listed(known)}{did_you_mean(stage, known)}'
        )

    def __iter__(self) -> Iterator[PolicyScores]:
        return iter(self.policies)

    def __len__(self) -> int:
        return len(self.policies)

    def gain(self, better: str, than: str, task: str | None = None) -> Gain:
        """Return the difference in sampled pass rate between two policies, paired by prompt, in points.

        Args:
            better: id of the stage that should have the higher pass rate.
            than: id of the stage to compare with.
            task: task whose prompts to compare on. Default: all prompts.

        Raises:
            UserError: one of them was not evaluated, or no prompt has the task.
        """
        return gain(self._content, self[better].stage, self[than].stage, task)

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat row of means for each policy, for `pandas.DataFrame`."""
        return [
            {
                "stage": policy.stage,
                "pass_rate": policy.pass_rate.mean,
                "greedy_pass_rate": policy.greedy_pass_rate.mean,
                "reward": _mean(policy.reward),
                **{f"reward_{name}": interval.mean for name, interval in policy.rewards.items()},
                "kl": _mean(policy.kl),
                "length": _mean(policy.length),
                "ended": policy.ended,
            }
            for policy in self.policies
        ]

    def __str__(self) -> str:
        wide = max(len("policy"), *(len(policy.stage) for policy in self.policies))
        lines = [f"{'policy':<{wide}}  {'pass rate':>9}  {'95% interval':>14}  {'reward':>8}  {'KL':>8}  {'length':>6}"]
        for policy in self.policies:
            rate = policy.pass_rate
            lines.append(
                f"{policy.stage:<{wide}}  {100 * rate.mean:>8.1f}%  {100 * rate.low:>5.1f} to {100 * rate.high:>5.1f}"
                f"  {_shown(policy.reward, 3):>8}  {_shown(policy.kl, 3):>8}  {_shown(policy.length, 1):>6}"
            )
        return "\n".join(lines)


def read_scores(content: Mapping[str, Any]) -> Scores:
    """Convert the content of a `scores.json` to `Scores`."""
    return Scores(
        prompts=content["prompts"],
        samples=content["samples"],
        initial=content["initial"],
        passes=tuple(content["passes"].split(", ")),
        policies=tuple(map(_policy, content["policies"])),
        _content=content,
    )


def _policy(content: Mapping[str, Any]) -> PolicyScores:
    return PolicyScores(
        stage=content["stage"],
        pass_rate=Interval(**content["pass_rate"]),
        greedy_pass_rate=Interval(**content["greedy_pass_rate"]),
        reward=_interval(content["reward"]),
        rewards={name: Interval(**interval) for name, interval in content["rewards"].items()},
        kl=_interval(content["kl"]),
        length=_interval(content["length"]),
        ended=content["ended"],
        by_task={name: _task(task) for name, task in content.get("by_task", {}).items()},
    )


def _task(content: Mapping[str, Any]) -> TaskScores:
    rates = (_interval(content[name]) for name in ("pass_rate", "greedy_pass_rate", "reward"))
    return TaskScores(content["prompts"], *rates)


def _interval(content: Mapping[str, float] | None) -> Interval | None:
    return None if content is None else Interval(**content)


def _mean(interval: Interval | None) -> float | None:
    return None if interval is None else interval.mean


def _shown(interval: Interval | None, decimals: int) -> str:
    return "-" if interval is None else f"{interval.mean:.{decimals}f}"
