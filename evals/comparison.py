"""Comparison of two policies, from an evaluation's `scores.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.evals.config import Expectation
from gemsmith.evals.intervals import Interval


@dataclass(frozen=True)
class Gain:
    """Points of sampled pass rate by which one policy leads, and whether the two 95% intervals are disjoint."""

    points: float
    apart: bool


def gain(scores: Mapping[str, Any], better: str, worse: str, task: str | None = None) -> Gain:
    """Return the gain in sampled pass rate of stage `better` over stage `worse`, in percentage points.

    Args:
        scores: the content of `scores.json`.
        better: id of the stage that should lead.
        worse: id of the stage that it is compared with.
        task: task of the rows to compare. Default: all rows.

    Returns:
        The gain; negative if `better` is worse.

    Raises:
        UserError: one of the stages was not evaluated, no row has the task, or no reward decides what passes there.
    """
    ahead, behind = _pass_rate(scores, better, task), _pass_rate(scores, worse, task)
    return Gain(points=100 * (ahead.mean - behind.mean), apart=not ahead.overlaps(behind))


def check_expected(scores: Mapping[str, Any], expected: Sequence[Expectation]) -> list[str]:
    """Return one line for each expected gain, such as "aligned is +31.2 points of pass rate from sft, intervals apart".

    Raises:
        RunError: a gain is smaller than expected, or intervals overlap that should not; the message names all of them.
    """
    met, missed = [], []
    for expectation in expected:
        found = gain(scores, expectation.better, expectation.than, expectation.task)
        of = "" if expectation.task is None else f" on {expectation.task}"
        line = (
            f"{expectation.better} is {found.points:+.1f} points of pass rate{of} from {expectation.than}, intervals "
        )
        line += "apart" if found.apart else "overlapping"
        if found.points >= expectation.by and (found.apart or not expectation.apart):
            met.append(line)
        else:
            missed.append(f"{line} (expected at least {expectation.by:+g}{', apart' if expectation.apart else ''})")
    if missed:
        raise RunError(
            f"an expected gain was not reached: {'; '.join(missed)}; train longer, evaluate more prompts, or "
            "lower `expect`"
        )
    return met


def _pass_rate(scores: Mapping[str, Any], stage: str, task: str | None) -> Interval:
    policies = {policy["stage"]: policy for policy in scores["policies"]}
    if stage not in policies:
        names = ", ".join(policies)
        raise UserError(f"stage `{stage}` was not evaluated (found {names}); add it to `policies`")
    if task is None:
        return Interval(**policies[stage]["pass_rate"])
    rates = {name: found["pass_rate"] for name, found in policies[stage]["by_task"].items() if found["pass_rate"]}
    if task not in rates:
        raise UserError(
            f'no evaluated row of task "{task}" can pass or fail. Tasks with a pass rate: '
            f"{', '.join(rates) or '(there is none)'}; check the data's `task` and the `tasks` of its rewards"
        )
    return Interval(**rates[task])
