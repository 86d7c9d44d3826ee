"""Where a control parts from what is learnt: the mark of a policy that has found a way around its reward.

Gao et al. (2023, arXiv 2210.10760) draw it: against the KL from the initial policy the learnt reward goes on rising,
and what it stood for rises with it, peaks, and falls. Imports no torch.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCKS = 10  # equal parts of a run that are compared
LEAST_ROWS = 4  # of a block
LEAST_BLOCKS = 3
PIECES, PIECE_ROWS = 5, 10  # straight pieces of a run's trend, against which its noise is measured
ERRORS = 4.0  # standard errors of a difference that count as a fall or a rise
MARKS = ("iteration", "run")  # what tells the trainings of one stage apart


@dataclass(frozen=True)
class HackingOnset:
    """A control that fell while the learnt reward rose: its peak, and the end of the run.

    Attributes:
        control: name of the reward that is not learnt from.
        step: optimiser step in the middle of the control's highest block.
        kl: mean KL to the initial policy in that block, in nats.
        fell: mean of the control in that block, and in the last.
        rose: the same of the learnt reward.
        where: `iteration` and `run` of the training, where its stage has several; from 0.
    """

    control: str
    step: int
    kl: float
    fell: tuple[float, float]
    rose: tuple[float, float]
    where: Mapping[str, int] = field(default_factory=dict)

    @property
    def training(self) -> str:
        """`iteration 1, run 2`; nothing where the stage has but one training."""
        return ", ".join(f"{mark} {self.where[mark] + 1}" for mark in MARKS if mark in self.where)

    def __str__(self) -> str:
        (high, low), (before, after) = self.fell, self.rose
        return (
            f"control {self.control} parts from the reward at KL {self.kl:.3g} (step {self.step}): it fell from "
            f"{high:.3g} to {low:.3g} while the reward rose from {before:.3g} to {after:.3g}"
        )


def hacking_onsets(rows: Iterable[Mapping[str, Any]], learnt: str) -> list[HackingOnset]:
    """Each control of each training that parts from its reward.

    Args:
        rows: of a stage's metrics.jsonl; those where the control, the reward or the KL is not known are left out.
        learnt: the metric that is learnt; see `learnt_metric`.
    """
    rows = list(rows)
    controls = dict.fromkeys(name for row in rows for name in row if name.startswith("control/"))
    trainings = dict.fromkeys(tuple((mark, row[mark]) for mark in MARKS if mark in row) for row in rows)
    found = []
    for training in trainings:
        own = [row for row in rows if all(row.get(mark) == value for mark, value in training)]
        for control in controls:
            known = [row for row in own if all(is_number(row.get(k)) for k in (control, learnt, "kl_to_initial"))]
            block = onset_block([row[learnt] for row in known], [row[control] for row in known])
            if block is None:
                continue
            parts = blocks(len(known))
            (start, end), last = parts[block], slice(*parts[-1])
            there = known[start:end]
            found.append(
                HackingOnset(
                    control.removeprefix("control/"),
                    there[len(there) // 2]["step"],
                    _mean([row["kl_to_initial"] for row in there]),
                    (_mean([row[control] for row in there]), _mean([row[control] for row in known[last]])),
                    (_mean([row[learnt] for row in there]), _mean([row[learnt] for row in known[last]])),
                    dict(training),
                )
            )
    return found


def read_hacking_onsets(metrics: Path, normalised: bool, where: Mapping[str, int]) -> list[HackingOnset]:
    """The controls that part in one training of a stage.

    Args:
        metrics: the stage's `metrics.jsonl`; nothing was logged where it is not there.
        normalised: see `learnt_metric`.
        where: the marks of the training's rows.
    """
    rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    own = [row for row in rows if where.items() <= row.items()]
    return hacking_onsets(own, learnt_metric({name for row in own for name in row}, normalised))


def learnt_metric(metrics: Iterable[str], normalised: bool) -> str:
    """The metric of what is learnt: `reward_learnt` where it was logged, else `reward`, the weighted sum as it came.

    Args:
        metrics: names of what was logged.
        normalised: whether a learnt reward is normalised. Then what is learnt has its mean taken off, step by step, and
            cannot rise: the sum as it came tells whether the policy gained.
    """
    return "reward_learnt" if "reward_learnt" in metrics and not normalised else "reward"


def onset_block(learnt: Sequence[float], control: Sequence[float]) -> int | None:
    """The block at which a control parts from the learnt reward, or None where it does not.

    The run is cut into ten blocks. The control parts at its highest block, when it is lower in the last block by more
    than ERRORS standard errors of that difference, and the learnt reward is higher in the last block than in that one
    by as much. The errors allow for noise that lasts from step to step; see `block_error`. A run with too few rows for
    three blocks of four never parts.

    Args:
        learnt: the learnt reward, one a logged row, in order.
        control: the control at the same rows.
    """
    parts = blocks(len(control))
    if len(parts) < LEAST_BLOCKS:
        return None
    heights = [_mean(control[start:end]) for start, end in parts]
    peak = heights.index(max(heights))
    fall, rise = heights[peak] - heights[-1], _mean(learnt[slice(*parts[-1])]) - _mean(learnt[slice(*parts[peak])])
    falls = fall > ERRORS * math.sqrt(2.0) * block_error(control)
    return peak if falls and rise > ERRORS * math.sqrt(2.0) * block_error(learnt) else None


def blocks(rows: int) -> list[tuple[int, int]]:
    """Start and end of each block: ten, or fewer where they would have less than four rows."""
    return _cut(rows, min(BLOCKS, rows // LEAST_ROWS))


def block_error(values: Sequence[float]) -> float:
    """Standard error of a block's mean: sigma / sqrt(rows) * sqrt((1 + rho) / (1 - rho)).

    The values are taken as a trend, straight in each fifth of the run (or longer piece, of at least ten rows), and
    first-order autoregressive noise around it with standard deviation sigma and correlation rho from row to row. The
    rho of n rows around their own line is too low by about (2 + 4 rho) / n, which is put right; it is kept from 0 to
    0.9. A millionth of the largest value is always noise.
    """
    pieces = _cut(len(values), min(PIECES, max(1, len(values) // PIECE_ROWS)))
    deviations = [_around_a_line(values[start:end]) for start, end in pieces]
    squares = sum(deviation**2 for piece in deviations for deviation in piece)
    products = sum(piece[i] * piece[i + 1] for piece in deviations for i in range(len(piece) - 1))
    n = len(values) / len(pieces)
    found = products / squares * n / (n - 1) if squares else 0.0
    rho = min(max((found + 2 / n) / (1 - 4 / n), 0.0), 0.9)
    sigma = math.sqrt(squares / (len(values) - 2 * len(pieces)))
    rows = len(values) / len(blocks(len(values)))
    return max(sigma / math.sqrt(rows) * math.sqrt((1 + rho) / (1 - rho)), 1e-6 * max(map(abs, values)))


def _cut(rows: int, count: int) -> list[tuple[int, int]]:
    return [(part * rows // count, (part + 1) * rows // count) for part in range(count)]


def _around_a_line(values: Sequence[float]) -> list[float]:
    """What a least-squares straight line through the values leaves."""
    middle, mean = (len(values) - 1) / 2, _mean(values)
    squares = sum((place - middle) ** 2 for place in range(len(values)))
    slope = sum((place - middle) * (value - mean) for place, value in enumerate(values)) / squares
    return [value - mean - slope * (place - middle) for place, value in enumerate(values)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def is_number(value: Any) -> bool:
    """Whether a logged value is a number, and finite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
