"""Linear mode connectivity: models between two members of WARM, and between two that share no pre-training."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys.corrupted import QUICK, SETTING, data_of, members, stranger
from benchmarks.fidelity.toys.reward_scores import accuracies, scorer_of

RATES = (0.25, 0.5, 0.75)
NEAR, FAR, UNSHARED = "equal learning rates", "lowest and highest learning rate", "no shared pre-training"
NOISE = 0.01  # about the standard error of the difference of two accuracies on the held-out pairs


def run(setting: Setting, seed: int) -> Measured:
    """Held-out accuracy along three lines, less the line between the accuracies of its ends."""
    data = data_of(setting, seed)
    scorer = scorer_of(setting, seed, data)
    rates = len(setting["rates"])
    lines = {NEAR: ("0", str(rates)), FAR: ("0", str(rates - 1)), UNSHARED: ("0", "stranger")}
    own = members(setting, seed)
    models = {**{str(m): model for m, model in enumerate(own)}, "stranger": stranger(setting, seed)}
    numbers: dict[str, float] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, (start, end) in lines.items():
        ends = [accuracies(scorer.of(f"member {m}", models[m]), data) for m in (start, end)]
        curves[name] = [(0.0, 0.0)]
        for rate in RATES:
            rewards = scorer.of_line(f"from {start} to {end} at {rate}", models[start], models[end], rate)
            found = accuracies(rewards, data)
            gap = {subset: found[subset] - (1 - rate) * ends[0][subset] - rate * ends[1][subset] for subset in found}
            curves[name].append((rate, gap["held out"]))
            if rate == 0.5:
                numbers |= {f"{name}, half way, {subset}": value for subset, value in gap.items()}
        curves[name].append((1.0, 0.0))
        numbers[name] = fmean(gap for _, gap in curves[name][1:-1])
        numbers |= {f"{name}, start": ends[0]["held out"], f"{name}, end": ends[1]["held out"]}
    return Measured(numbers, curves)


def judge(measurements: Sequence[Measured]) -> Verdict:
    """No lower than the line with shared pre-training, lower without."""

    def along(name: str) -> list[float]:
        return [one.numbers[name] for one in measurements]

    return graded(
        f"models between members are as accurate as the line between their accuracies (to {NOISE}) or more; "
        "between models of unlike pre-training they are not",
        [", ".join(f"{name} {one.numbers[name]:+.3f}" for name in (NEAR, FAR, UNSHARED)) for one in measurements],
        {
            f"no lower, {NEAR}": [gap >= -NOISE - 1e-9 for gap in along(NEAR)],
            f"no lower, {FAR}": [gap >= -NOISE - 1e-9 for gap in along(FAR)],
            f"lower, {UNSHARED}": [gap < -NOISE for gap in along(UNSHARED)],
        },
        "Numbers are means over the three models of a line; held-out accuracy half way, mean over seeds: "
        + ", ".join(f"{name} {fmean(along(f'{name}, half way, held out')):+.3f}" for name in (NEAR, FAR, UNSHARED)),
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Draw the three lines."""
    labels = {name: name for name in (NEAR, FAR, UNSHARED)}
    x, y = "weight of the second model in the average", "held-out accuracy less that interpolated between the ends"
    draw_curves(axes, measurements, labels, x, y, marker="o")
    axes.axhline(0, color="#888888", linewidth=0.8)


CLAIM = Claim(
    id="W2",
    sentence="Reward models from one pre-training are linearly connected: between two members accuracy is no lower "
    "than interpolated; without shared pre-training it is.",
    source="WARM (arXiv 2401.12187), observation 1",
    setting=SETTING,
    quick=QUICK,
    run=run,
    judge=judge,
    draw=draw,
)
