"""J-BOND's two knobs, the anchor's rate and the weight of the KL to the anchor, on tiny Gemma 3 policies."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.curves import at, mean_gap
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys import jbond_ways, trajectory
from benchmarks.fidelity.toys.jbond_ways import curves_of, jbond_way, numbers_of

RATES = (0.01, 0.05, 0.1)
GAMMAS = (0.0, 0.5, 2.0)


def run(setting: Setting, seed: int) -> Measured:
    """Train with each rate at gamma 0, and with each gamma at the setting's rate, which is the middle one."""
    ways = {f"rate {rate}": jbond_way(setting, seed, anchor_rate=rate) for rate in RATES}
    ways |= {f"gamma {gamma}": jbond_way(setting, seed, gamma=gamma) for gamma in GAMMAS[1:]}
    ways["gamma 0.0"] = jbond_way(setting, seed)
    curves = {name: curve for key, way in ways.items() for name, curve in curves_of(key, way).items()}
    return Measured({name: n for key, way in ways.items() for name, n in numbers_of(key, way).items()}, curves)


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Pace by the mean reward over all steps, trade-off by reward at equal KL."""

    def pace(one: Measured, name: str) -> float:
        """Mean reward over the steps: how early reward comes, with little of the noise of single points."""
        curve = one.curves[f"{name} reward"]
        return mean_gap(curve, [(step, 0.0) for step, _ in curve])

    def rises(values: Sequence[float]) -> bool:
        return all(a < b for a, b in pairwise(values))

    rates, gammas = [f"rate {rate}" for rate in RATES], [f"gamma {gamma}" for gamma in GAMMAS]

    def shared(one: Measured) -> float:
        return min(one.numbers[f"{name} KL"] for name in gammas)

    return graded(
        "reward comes earlier with a larger rate; a larger gamma: KL slower, reward at equal KL higher",
        [
            f"mean reward over the steps {'/'.join(f'{pace(one, name):.2f}' for name in rates)}; last KL by rate "
            f"{'/'.join(format(one.numbers[name + ' KL'], '.2f') for name in rates)}, by gamma "
            f"{'/'.join(format(one.numbers[name + ' KL'], '.2f') for name in gammas)}; reward at KL {shared(one):.2f} "
            f"by gamma {'/'.join(format(at(one.curves[name], shared(one)), '.2f') for name in gammas)}; at equal KL "
            "over gamma 0 in the mean "
            + "/".join(f"{mean_gap(one.curves[name], one.curves[gammas[0]], 0.2):+.3f}" for name in gammas[1:])
            for one in measurements
        ],
        {
            "a larger rate is faster": [rises([pace(one, name) for name in rates]) for one in measurements],
            "a larger gamma is slower in KL": [
                rises([-one.numbers[f"{name} KL"] for name in gammas]) for one in measurements
            ],
            **{
                f"gamma {more.split()[1]} gives more reward at equal KL than {less.split()[1]} in the mean": [
                    mean_gap(one.curves[more], one.curves[less], 0.2) > 0 for one in measurements
                ]
                for less, more in pairwise(gammas)
            },
        },
        f"Rates are {'/'.join(map(str, RATES))}, gammas {'/'.join(f'{gamma:g}' for gamma in GAMMAS)} at rate 0.05.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Reward over KL for the gammas, and for the slowest and fastest rate."""
    labels = {f"gamma {gamma}": f"rate 0.05, γ = {gamma:g}" for gamma in GAMMAS}
    labels |= {f"rate {rate}": f"rate {rate:g}, γ = 0" for rate in (RATES[0], RATES[-1])}
    draw_curves(axes, measurements, labels, "KL to the initial policy (nats)", "mean reward (standard deviations)", "o")


CLAIM = Claim(
    id="G3",
    sentence="Tiny Gemma 3: a larger anchor rate makes J-BOND faster; a larger γ makes it slower in KL and better at "
    "equal KL.",
    source="BOND (arXiv 2407.14622), section 6 and figure 6",
    setting=jbond_ways.SETTING,
    quick=jbond_ways.QUICK,
    run=run,
    judge=judge,
    draw=draw,
    names=trajectory.NAMES,
)
