"""Ours against TRL's trainers: the best reward at equal KL and in equal time, each tuned on the same small grid."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys import contenders
from benchmarks.fidelity.toys.contenders import Contest, contest

PILOT = 99  # the seed on which settings are chosen
LEVELS = (1.0, 2.0, 4.0)
TIME = "in equal time"
CRITERIA = (*(f"within KL {level:g}" for level in LEVELS), TIME)
DRAWN = tuple(level / 4 for level in range(1, 19))
# Each has a usual setting first and one other. 0.05 is the default of TRL's RLOO and of ours; in a trial on the pilot's
# seed a weight of 0.5 held the policy at KL 1, so that 0.2 is near where the levels are.
SETTINGS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grpo": ({"beta": 0.0}, {"beta": 0.2}),
    "rloo": ({"beta": 0.05}, {"beta": 0.2}),
    "reinforce": ({"kl": 0.05}, {"kl": 0.2}),
    "bond": ({"anchor_rate": 0.05}, {"anchor_rate": 0.2}),
    "warp": ({"kl": 0.05}, {"kl": 0.5, "anchor_rate": 0.05}),
}
LABELS = {"warp": "WARP", "bond": "J-BOND", "reinforce": "reinforce", "grpo": "TRL's GRPO", "rloo": "TRL's RLOO"}
OURS, THEIRS = ("warp", "bond", "reinforce"), ("grpo", "rloo")


def run(setting: Setting, seed: int) -> Measured:
    """Run each contender with the settings that were best in the pilot, by one criterion or another.

    A contender's result is the best of these, within each KL and in the time that the quickest training of all takes.
    """
    grid = {name: _grid(name, rates, setting["settings"]) for name, rates in setting["learning_rates"].items()}
    numbers: dict[str, float] = {}
    chosen = {name: {0} for name in grid}
    if max(len(each) for each in grid.values()) > 1:
        everything = {name: set(range(len(each))) for name, each in grid.items()}
        pilot = _scores(_ran(grid, everything, setting, PILOT, backwards=seed % 2 == 1))
        chosen = {name: _best(scores) for name, scores in pilot.items()}
        for name, scores in pilot.items():
            for i, score in scores.items():
                numbers |= {f"pilot {name} {_label(grid[name][i])} {of}": value for of, value in score.items()}
    found = _ran(grid, chosen, setting, seed)
    for name, scores in _scores(found).items():
        for criterion in CRITERIA:
            values = [score[criterion] for score in scores.values() if criterion in score]
            numbers |= {f"{name} {criterion}": max(values)} if values else {}
        for i, one in found[name].items():
            numbers[f"{name} {_label(grid[name][i])} seconds"] = one.seconds[-1]
            numbers[f"{name} {_label(grid[name][i])} first reward"] = one.first
    return Measured(numbers, {name: _envelope(list(contests.values())) for name, contests in found.items()})


def _grid(name: str, rates: Sequence[float], settings: int) -> list[dict[str, Any]]:
    return [{"learning_rate": rate, **options} for options in SETTINGS[name][:settings] for rate in rates]


def _best(scores: Mapping[int, Mapping[str, float]]) -> set[int]:
    """Return the settings that are best by some criterion, of those that reach it."""
    reached = [{i: score[criterion] for i, score in scores.items() if criterion in score} for criterion in CRITERIA]
    return {max(values, key=lambda i: values[i]) for values in reached if values}


def _ran(
    grid: Mapping[str, list[dict[str, Any]]],
    which: Mapping[str, set[int]],
    setting: Setting,
    seed: int,
    backwards: bool = False,
) -> dict[str, dict[int, Contest]]:
    """Run settings of each contender, or read those that have been; backwards, so that two processes can share them."""
    order = [(name, i) for name in grid for i in sorted(which[name])]
    found = {(name, i): contest(name, grid[name][i], setting, seed) for name, i in order[:: -1 if backwards else 1]}
    return {name: {i: found[name, i] for i in sorted(which[name])} for name in grid}


def _scores(found: Mapping[str, Mapping[int, Contest]]) -> dict[str, dict[int, dict[str, float]]]:
    """Return the reward of each training by each criterion that it reaches; WARP's only if in time."""
    time = min(one.seconds[-1] for name, contests in found.items() if name != "warp" for one in contests.values())
    scores: dict[str, dict[int, dict[str, float]]] = {name: {} for name in found}
    for name, contests in found.items():
        for i, one in contests.items():
            values = [_within(one.front, level) for level in LEVELS]
            timed = one.over_time
            values.append(_at(timed, time) if name != "warp" else timed[-1][1] if timed[-1][0] <= time else math.nan)
            scores[name][i] = {c: value for c, value in zip(CRITERIA, values, strict=True) if not math.isnan(value)}
    return scores


def _envelope(contests: Sequence[Contest]) -> list[tuple[float, float]]:
    """(KL, the best reward within it), no further than the policies come."""
    furthest = max(kl for one in contests for kl, _ in one.front)
    return [(level, max(_within(one.front, level) for one in contests)) for level in DRAWN if level <= furthest]


def _within(front: Sequence[tuple[float, float]], level: float) -> float:
    """Return the best reward at a KL of at most this much: more reward at less KL is better."""
    values = [reward for kl, reward in front if kl <= level]
    reached = _at(front, level)
    return max([*values, reached] if not math.isnan(reached) else values)


def _at(curve: Sequence[tuple[float, float]], x: float) -> float:
    """Return the curve's value between its points, linearly interpolated; NaN outside."""
    points = sorted(curve)
    return float(np.interp(x, [p[0] for p in points], [p[1] for p in points], left=math.nan, right=math.nan))


def _label(options: Mapping[str, Any]) -> str:
    """Return a training's settings as a short text."""
    return " ".join(f"{name} {value}" for name, value in options.items())


def judge(measurements: Sequence[Measured]) -> Verdict:
    """By each criterion, the best of ours against the best of TRL's."""

    def best(one: Measured, names: Sequence[str], criterion: str) -> float:
        return max(one.numbers.get(f"{name} {criterion}", -math.inf) for name in names)

    def told(one: Measured, criterion: str) -> str:
        each = [f"{LABELS[name]} {one.numbers.get(f'{name} {criterion}', math.nan):.2f}" for name in LABELS]
        return f"{criterion}: {', '.join(each)}"

    return graded(
        "the best of ours has the higher reward than the best of TRL's within every KL, and in equal time",
        ["; ".join(told(one, criterion) for criterion in CRITERIA) for one in measurements],
        {
            f"ours is ahead {criterion}": [
                best(one, OURS, criterion) > best(one, THEIRS, criterion) for one in measurements
            ]
            for criterion in CRITERIA
        },
        "Each is run with the settings that were best of its grid in the pilot (seed 99) by one criterion or another, "
        "and the best of these counts: of 18 pilot trainings of ours and 12 of TRL's, the best of three algorithms "
        "against the best of two. Within 1 and 2 nats TRL's best settings lay on the edge of the grid. Ours is ahead "
        "near the start by WARP, whose line is above a training's way; without WARP both are level within what seeds "
        "differ by. In equal time no KL bounds anything, and what learns fastest and furthest "
        "wins, 15 to 27 nats away: there it is the largest learning rate, with TRL's GRPO without a KL, which ours was "
        "not given, and with its RLOO, which is the same algorithm as ours at a third more seconds a step, and whose "
        "reward there differs from ours by as much as seeds do. WARP, in two runs, is not done in that time.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Return the best reward of each contender within a KL."""
    draw_curves(axes, measurements, LABELS, "KL to the initial policy (nats)", "mean reward (standard deviations)")


CLAIM = Claim(
    id="T1",
    sentence="At equal KL, completions and tuning the best of ours earns more than the best of TRL's trainers.",
    source="our own question, on the policies of WARP (arXiv 2406.16768) and BOND (arXiv 2407.14622)",
    setting={
        "sft_steps": 90,
        "prompts": 16,  # a step
        "samples": 4,  # completions of each; J-BOND has 21 prompts and three
        "steps": 64,
        "points": 7,
        "asked": 128,
        "settings": 2,
        "learning_rates": {name: (1e-4, 3e-4, 1e-3) for name in SETTINGS},
    },
    quick={
        **{"sft_steps": 12, "prompts": 3, "steps": 4, "points": 2, "asked": 8, "settings": 1},
        "learning_rates": {name: (3e-4,) for name in SETTINGS},
    },
    run=run,
    judge=judge,
    draw=draw,
    names=contenders.NAMES,
)
