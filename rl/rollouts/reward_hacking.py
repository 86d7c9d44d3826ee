"""Detection of reward hacking: the step at which a control reward starts to fall while the learned reward rises.

Gao et al. (2023, arXiv 2210.10760) describe the pattern: as the KL to the initial policy grows, the learned reward
keeps rising while the true objective rises at first, peaks, and falls. Imports no torch.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemsmith.contracts.reading import log_rows

BLOCKS = 10  # equal parts of a run that are compared
LEAST_ROWS = 4  # fewest rows of a block
LEAST_BLOCKS = 3  # fewest blocks of a run that is judged
PIECES, PIECE_ROWS = 5, 10  # pieces of a run with a linear trend each, and the fewest rows of a piece
ERRORS = 4.0  # standard errors of a difference that count as a fall or a rise
MARKS = ("iteration", "run")  # columns that identify a training of a stage with several


@dataclass(frozen=True)
class HackingOnset:
    """Control reward that fell while the learned reward rose, with values at its peak and at the end of the run.

    Attributes:
        control: name of the control reward.
        step: optimiser step in the middle of the control's highest block.
        kl: mean KL to the initial policy in that block, in nats.
        fell: mean of the control in that block and in the last block.
        rose: mean of the learned reward in the same two blocks.
        where: `iteration` and `run` of the training, from 0, if its stage has several trainings.
    """

    control: str
    step: int
    kl: float
    fell: tuple[float, float]
    rose: tuple[float, float]
    where: Mapping[str, int] = field(default_factory=dict)

    @property
    def training(self) -> str:
        """Return a label such as `iteration 1, run 2`; empty if the stage has one training."""
        return ", ".join(f"{mark} {self.where[mark] + 1}" for mark in MARKS if mark in self.where)

    def __str__(self) -> str:
        (high, low), (before, after) = self.fell, self.rose
        return (
            f"control {self.control} diverges from the reward at KL {self.kl:.3g} (step {self.step}): it fell from "
            f"{high:.3g} to {low:.3g} while the reward rose from {before:.3g} to {after:.3g}"
        )


def hacking_onsets(rows: Iterable[Mapping[str, Any]], learnt: str) -> list[HackingOnset]:
    """Find the controls that diverge from the learned reward, for each training of a stage.

    Args:
        rows: rows of the stage's metrics.jsonl; rows without the control, the reward or the KL are ignored.
        learnt: name of the metric of the learned reward; see `learnt_metric`.
    """
    rows = list(rows)
    controls = dict.fromkeys(name for row in rows for name in row if name.startswith("control/"))
    trainings = dict.fromkeys(tuple((mark, row[mark]) for mark in MARKS if mark in row) for row in rows)
    onsets = []
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
            onsets.append(
                HackingOnset(
                    control.removeprefix("control/"),
                    there[len(there) // 2]["step"],
                    _mean([row["kl_to_initial"] for row in there]),
                    (_mean([row[control] for row in there]), _mean([row[control] for row in known[last]])),
                    (_mean([row[learnt] for row in there]), _mean([row[learnt] for row in known[last]])),
                    dict(training),
                )
            )
    return onsets


def read_hacking_onsets(metrics: Path, normalised: bool, where: Mapping[str, int]) -> list[HackingOnset]:
    """Read the controls that diverge from the learned reward in one training of a stage.

    Args:
        metrics: path of the stage's `metrics.jsonl`; a missing file counts as empty.
        normalised: see `learnt_metric`.
        where: values of `iteration` and `run` that select the training's rows.
    """
    own = [row for row in log_rows(metrics) if where.items() <= row.items()]
    return hacking_onsets(own, learnt_metric({name for row in own for name in row}, normalised))


def learnt_metric(metrics: Iterable[str], normalised: bool) -> str:
    """Return the name of the metric to compare controls with: `reward_learnt` or `reward`.

    Args:
        metrics: names of the logged metrics.
        normalised: True if a reward is normalised. `reward_learnt` then has mean 0 in every step and cannot rise, so
            `reward`, the raw weighted sum, is used even if `reward_learnt` was logged.
    """
    return "reward_learnt" if "reward_learnt" in metrics and not normalised else "reward"


def onset_block(learnt: Sequence[float], control: Sequence[float]) -> int | None:
    """Return the block at which a control diverges from the learned reward, or None if it does not.

    The run is split into ten blocks. The control diverges at its highest block if, from that block to the last, the
    control falls and the learned reward rises, each by more than ERRORS standard errors of the difference. The standard
    errors account for noise that is correlated between steps; see `block_error`. A run with fewer rows than three
    blocks of four never diverges.

    Args:
        learnt: the learned reward, one value per logged row, in order.
        control: the control at the same rows.
    """
    parts = blocks(len(control))
    if len(parts) < LEAST_BLOCKS:
        return None
    heights = [_mean(control[start:end]) for start, end in parts]
    peak = heights.index(max(heights))
    fall, rise = heights[peak] - heights[-1], _mean(learnt[slice(*parts[-1])]) - _mean(learnt[slice(*parts[peak])])
    # The difference of two independent block means has sqrt(2) times the standard error of one.
    falls = fall > ERRORS * math.sqrt(2.0) * block_error(control)
    return peak if falls and rise > ERRORS * math.sqrt(2.0) * block_error(learnt) else None


def blocks(rows: int) -> list[tuple[int, int]]:
    """Return the start and end of each block: ten blocks, or fewer so that each has at least four rows."""
    return _cut(rows, min(BLOCKS, rows // LEAST_ROWS))


def block_error(values: Sequence[float]) -> float:
    """Return the standard error of a block's mean, sigma / sqrt(rows) * sqrt((1 + rho) / (1 - rho)).

    The model of the values is a trend plus first-order autoregressive noise with standard deviation sigma and
    correlation rho between successive rows. The trend is linear in each fifth of the run (or in longer pieces, so that
    each has at least ten rows). The estimate of rho from n residuals around a fitted line is too low by about
    (2 + 4 rho) / n; this is corrected, and the result is clamped to [0, 0.9]. The error is at least a millionth of the
    largest absolute value.
    """
    pieces = _cut(len(values), min(PIECES, max(1, len(values) // PIECE_ROWS)))
    deviations = [_around_a_line(values[start:end]) for start, end in pieces]
    squares = sum(deviation**2 for piece in deviations for deviation in piece)
    products = sum(piece[i] * piece[i + 1] for piece in deviations for i in range(len(piece) - 1))
    n = len(values) / len(pieces)
    # A piece has n squares and n - 1 products of neighbours: the factor compares their means.
    estimate = products / squares * n / (n - 1) if squares else 0.0
    # Solves estimate = rho - (2 + 4 rho) / n for rho.
    rho = min(max((estimate + 2 / n) / (1 - 4 / n), 0.0), 0.9)
    # Each fitted line takes two degrees of freedom.
    sigma = math.sqrt(squares / (len(values) - 2 * len(pieces)))
    rows = len(values) / len(blocks(len(values)))
    return max(sigma / math.sqrt(rows) * math.sqrt((1 + rho) / (1 - rho)), 1e-6 * max(map(abs, values)))


def _cut(rows: int, count: int) -> list[tuple[int, int]]:
    return [(part * rows // count, (part + 1) * rows // count) for part in range(count)]


def _around_a_line(values: Sequence[float]) -> list[float]:
    """Return the residuals of a least-squares line through the values."""
    middle, mean = (len(values) - 1) / 2, _mean(values)
    squares = sum((place - middle) ** 2 for place in range(len(values)))
    slope = sum((place - middle) * (value - mean) for place, value in enumerate(values)) / squares
    return [value - mean - slope * (place - middle) for place, value in enumerate(values)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def is_number(value: Any) -> bool:
    """Return True if a logged value is a finite number; booleans do not count."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
