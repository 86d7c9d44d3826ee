"""WARP's outer loop: runs from a start, merged, and the start moved 0.3 of the way to the merge, several times."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.curves import at
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys.bandit import reward_and_kl
from benchmarks.fidelity.toys.warp import between, inner_run, line, merged, warp_bandit

RATES = tuple(rate / 10 for rate in range(11))
ITERATIONS = (1, 2, 3)


def run(setting: Setting, seed: int) -> Measured:
    """Iterate; the line from the initial policy to the merge of each iteration."""
    bandit = warp_bandit(setting, seed)
    start = bandit.reference
    numbers, curves = {}, {}
    for iteration in ITERATIONS:
        finals = [
            inner_run(bandit, start, setting, setting["kl"], 100 * seed + 10 * iteration + number)[0]
            for number in range(setting["runs"])
        ]
        end, _ = merged(start, finals)
        numbers[f"reward {iteration}"], numbers[f"KL {iteration}"] = reward_and_kl(end, bandit)
        curves[f"iteration {iteration}"] = line(bandit, bandit.reference, end, RATES)
        start = between(start, end, setting["liti"])
    return Measured(numbers, curves)


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Judge the ends of the lines, and lines at equal KL."""

    def fronts(one: Measured) -> list[float]:
        level = 0.8 * one.numbers["KL 1"]
        return [at(one.curves[f"iteration {iteration}"], level) for iteration in ITERATIONS]

    ends = [[one.numbers[f"reward {iteration}"] for iteration in ITERATIONS] for one in measurements]
    return graded(
        "the end of the line rises with each iteration, by less each time; the front at equal KL rises too",
        [
            "ends "
            + ", ".join(f"{one.numbers[f'reward {i}']:.2f} at KL {one.numbers[f'KL {i}']:.2f}" for i in ITERATIONS)
            + f"; at KL {0.8 * one.numbers['KL 1']:.2f}: {'/'.join(f'{value:.3f}' for value in fronts(one))}"
            for one in measurements
        ],
        {
            "the end rises with each iteration": [all(a < b for a, b in pairwise(values)) for values in ends],
            "the second gain is smaller than the first": [c - b < b - a for a, b, c in ends],
            "at equal KL the second iteration is above the first": [
                fronts(one)[1] > fronts(one)[0] for one in measurements
            ],
            "at equal KL the third is above the second": [fronts(one)[2] > fronts(one)[1] for one in measurements],
        },
        "In the noisy setting of P3; the gain is in reach more than at equal KL.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Reward over KL."""
    labels = {f"iteration {iteration}": f"line to the merge of iteration {iteration}" for iteration in ITERATIONS}
    draw_curves(axes, measurements, labels, "KL to the initial policy (nats)", "mean reward (standard deviations)", ".")


CLAIM = Claim(
    id="P4",
    sentence="Iterating WARP from 0.3 of the way to the merge improves the front of reward over KL, less each time.",
    source="WARP (arXiv 2406.16768), section 3.3, observation 6, figure 1b",
    setting={
        "widths": (24, 96, 96, 64), "prompts": 4096, "held_out": 2048, "batch": 4, "noise": 3.0, "steps": 500,
        "learning_rate": 2e-3, "every": 500, "kl": 0.5, "runs": 2, "liti": 0.3,
    },
    quick={"steps": 200, "every": 200},
    run=run,
    judge=judge,
    draw=draw,
)  # fmt: skip
