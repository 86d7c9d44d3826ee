"""Comparison of two policies, from an evaluation's `scores.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.evals.config import Expectation


@dataclass(frozen=True)
class Gain:
    """Points of sampled pass rate by which one policy leads another on the same prompts.

    Attributes:
        points: percentage points; negative if the policy is worse.
        low: lower bound of the 95% interval of the difference, in points; None in scores of earlier versions.
        high: upper bound.
        p_value: two-sided p-value of no difference; None in scores of earlier versions.
        apart: True if the interval excludes 0 (in scores of earlier versions: if the policies' intervals are disjoint).
    """

    points: float
    low: float | None
    high: float | None
    p_value: float | None
    apart: bool

    def __str__(self) -> str:
        text = f"{self.points:+.1f} points"
        if self.low is None or self.high is None or self.p_value is None:
            return f"{text}, intervals {'apart' if self.apart else 'overlapping'}"
        p_value = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.2g}"
        return f"{text} ({self.low:+.1f} to {self.high:+.1f}, {p_value})"


def gain(scores: Mapping[str, Any], better: str, worse: str, task: str | None = None) -> Gain:
    """Return the gain in sampled pass rate of stage `better` over stage `worse`, paired by prompt.

    Args:
        scores: the content of `scores.json`.
        better: id of the stage that should lead.
        worse: id of the stage that it is compared with.
        task: task of the rows to compare. Default: all rows.

    Raises:
        UserError: one of the stages was not evaluated, no row has the task, or no reward decides what passes there.
    """
    ahead, behind = _pass_rate(scores, better, task), _pass_rate(scores, worse, task)
    for entry in scores.get("differences", ()):
        if {entry["stage"], entry["than"]} == {better, worse} and better != worse and entry["task"] == task:
            found, sign = entry["pass_rate"], 1 if entry["stage"] == better else -1
            low, high = sorted((100 * sign * found["low"], 100 * sign * found["high"]))
            return Gain(100 * sign * found["mean"], low, high, found["p_value"], low > 0 or high < 0)
    # Scores of earlier versions have the policies' own intervals alone.
    apart = ahead["low"] > behind["high"] or ahead["high"] < behind["low"]
    return Gain(100 * (ahead["mean"] - behind["mean"]), None, None, None, apart)


def check_expected(scores: Mapping[str, Any], expected: Sequence[Expectation]) -> list[str]:
    """Return one line for each expected gain, with its interval and p-value.

    Raises:
        RunError: a gain is smaller than expected, or its interval includes 0; the message names all of them.
    """
    met, missed = [], []
    for expectation in expected:
        found = gain(scores, expectation.better, expectation.than, expectation.task)
        line = gain_line(expectation.better, expectation.than, found, expectation.task)
        if found.points >= expectation.by and (not expectation.apart or (found.apart and found.points > 0)):
            met.append(line)
        else:
            above = ", with an interval above 0" if expectation.apart else ""
            missed.append(f"{line}; expected at least {expectation.by:+g}{above}")
    if missed:
        raise RunError(
            f"an expected gain was not reached: {'; '.join(missed)}; train longer, evaluate more prompts, or "
            "lower `expect`"
        )
    return met


def gain_line(better: str, than: str, found: Gain, task: str | None = None) -> str:
    """Return a gain as text, such as "aligned: pass rate +31.2 points from sft (+28.0 to +34.4, p < 0.001)"."""
    points, _, rest = str(found).partition(" points")
    return f"{better}: pass rate{'' if task is None else f' on {task}'} {points} points from {than}{rest}"


def score_lines(scores: Mapping[str, Any]) -> list[str]:
    """Return one line for each policy: its sampled pass rate, reward and KL, with 95% intervals."""
    lines = []
    for policy in scores["policies"]:
        rate = policy["pass_rate"]
        parts = [f"pass rate {100 * rate['mean']:.1f}% ({100 * rate['low']:.1f} to {100 * rate['high']:.1f})"]
        for name, unit in (("reward", ""), ("kl", " nats")):
            if found := policy.get(name):
                parts.append(f"{'KL' if name == 'kl' else name} {found['mean']:.3g}{unit}")
        lines.append(f"{policy['stage']}: {', '.join(parts)}")
    return lines


def _pass_rate(scores: Mapping[str, Any], stage: str, task: str | None) -> Mapping[str, float]:
    policies = {policy["stage"]: policy for policy in scores["policies"]}
    if stage not in policies:
        names = ", ".join(policies)
        raise UserError(f"stage `{stage}` was not evaluated (found {names}); add it to `policies`")
    if task is None:
        found: Mapping[str, float] = policies[stage]["pass_rate"]
        return found
    rates = {name: found["pass_rate"] for name, found in policies[stage]["by_task"].items() if found["pass_rate"]}
    if task not in rates:
        raise UserError(
            f'no evaluated row of task "{task}" can pass or fail. Tasks with a pass rate: '
            f"{', '.join(rates) or '(there is none)'}; check the data's `task` and the `tasks` of its rewards"
        )
    rate: Mapping[str, float] = rates[task]
    return rate
