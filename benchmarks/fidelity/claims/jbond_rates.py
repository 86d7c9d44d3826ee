"""J-BOND's two knobs: the anchor's rate sets the pace, and the weight of the KL to the anchor trades it for reward."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.curves import at
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys.bandit import copy_of, curves_of, jbond, make_bandit, trace

RATES = (0.01, 0.05, 0.1)
GAMMAS = (0.0, 1.0, 2.0)
LEVELS = (1.0, 2.0)


def run(setting: Setting, seed: int) -> Measured:
    """Train with each rate at gamma 0, and with each gamma at rate 0.05."""
    bandit = make_bandit(seed, tuple(setting["widths"]), setting["prompts"])
    options = {name: setting[name] for name in ("every", "steps", "batch", "learning_rate")}
    runs = {f"rate {rate}": jbond(anchor_rate=rate) for rate in RATES}
    runs |= {f"gamma {gamma}": jbond(gamma=gamma, anchor_rate=0.05) for gamma in GAMMAS[1:]}
    traces = {name: trace(copy_of(bandit.reference), bandit, algorithm, seed, **options)
              for name, algorithm in runs.items()}  # fmt: skip
    traces["gamma 0.0"] = traces["rate 0.05"]
    return Measured({f"{name} KL": points[-1][2] for name, points in traces.items()}, curves_of(traces))


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Pace by reward at half of the steps, trade-off by reward at equal KL."""

    def half(one: Measured, name: str) -> float:
        curve = one.curves[f"{name} reward"]
        return at(curve, curve[-1][0] / 2)

    def rises(values: Sequence[float]) -> bool:
        return all(a < b for a, b in pairwise(values))

    rates, gammas = [f"rate {rate}" for rate in RATES], [f"gamma {gamma}" for gamma in GAMMAS]
    reached = [x for x in LEVELS if all(x < one.numbers[f"{name} KL"] for one in measurements for name in gammas)]
    return graded(
        "reward after half of the steps rises with the rate; a larger gamma: KL slower, reward at equal KL higher",
        [
            f"reward half-way {'/'.join(f'{half(one, name):.2f}' for name in rates)}; last KL by gamma "
            f"{'/'.join(format(one.numbers[name + ' KL'], '.2f') for name in gammas)}; reward at KL "
            + ", ".join(f"{x:g}: {'/'.join(f'{at(one.curves[name], x):.3f}' for name in gammas)}" for x in reached)
            for one in measurements
        ],
        {
            "a larger rate is faster": [rises([half(one, name) for name in rates]) for one in measurements],
            "a larger gamma is slower in KL": [
                rises([-one.numbers[f"{name} KL"] for name in gammas]) for one in measurements
            ],
            **{
                f"a larger gamma gives more reward at KL {x:g}": [
                    rises([at(one.curves[name], x) for name in gammas]) for one in measurements
                ]
                for x in reached
            },
        },
        "Rates are 0.01/0.05/0.1, gammas 0/1/2 at rate 0.05.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Reward over KL for the gammas, and for the slowest and fastest rate."""
    labels = {f"gamma {gamma}": f"rate 0.05, γ = {gamma:g}" for gamma in GAMMAS}
    labels |= {"rate 0.01": "rate 0.01, γ = 0", "rate 0.1": "rate 0.1, γ = 0"}
    draw_curves(axes, measurements, labels, "KL to the reference (nats)", "mean reward (standard deviations)")


CLAIM = Claim(
    id="B3b",
    sentence="A larger anchor rate makes J-BOND faster; a larger γ makes it slower in KL and better at equal KL.",
    source="BOND (arXiv 2407.14622), section 6 and figure 6",
    setting={
        "widths": (16, 64, 128), "prompts": 512, "batch": 128, "steps": 440, "learning_rate": 2e-3, "every": 20,
    },
    quick={"steps": 220},
    run=run,
    judge=judge,
    draw=draw,
)  # fmt: skip
