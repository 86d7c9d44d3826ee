"""J-BOND's moving average as its anchor, against a periodic one, on tiny Gemma 3 policies."""

from collections.abc import Sequence
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.curves import at, mean_gap
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys import jbond_ways, trajectory
from benchmarks.fidelity.toys.jbond_ways import curves_of, jbond_way, numbers_of

LEVELS = (1.0, 2.0, 3.0)


def run(setting: Setting, seed: int) -> Measured:
    """Train both from one SFT policy on the same prompts."""
    ways = {
        "EMA": jbond_way(setting, seed),
        "periodic": jbond_way(setting, seed, anchor="periodic", anchor_every=setting["anchor_every"]),
    }
    curves = {name: curve for key, way in ways.items() for name, curve in curves_of(key, way).items()}
    return Measured({name: n for key, way in ways.items() for name, n in numbers_of(key, way).items()}, curves)


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Reward and KL at the last step; reward at equal KL."""

    def gain(one: Measured) -> float:
        return mean_gap(one.curves["EMA"], one.curves["periodic"], 0.5)

    def levels(one: Measured) -> str:
        pairs = {level: [at(one.curves[name], level) for name in ("EMA", "periodic")] for level in LEVELS}
        return ", ".join(f"{a:.2f}/{b:.2f} (KL {level:g})" for level, (a, b) in pairs.items() if a == a and b == b)

    return graded(
        "the same reward at the last step (within 5%), at a lower KL; so a higher reward at equal KL",
        [
            f"reward {one.numbers['EMA reward']:.2f} at KL {one.numbers['EMA KL']:.2f}, periodic "
            f"{one.numbers['periodic reward']:.2f} at {one.numbers['periodic KL']:.2f}; at equal KL {levels(one)}; "
            f"from KL 0.5 on {gain(one):+.3f} in the mean"
            for one in measurements
        ],
        {
            "KL is lower at the last step": [
                one.numbers["EMA KL"] < one.numbers["periodic KL"] for one in measurements
            ],
            "reward is within 5% at the last step": [
                abs(one.numbers["EMA reward"] / one.numbers["periodic reward"] - 1) < 0.05 for one in measurements
            ],
            "reward at equal KL is higher in the mean": [gain(one) > 0 for one in measurements],
        },
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Reward over KL."""
    labels = {"EMA": "moving average, rate 0.05", "periodic": "renewed every 20 steps"}
    draw_curves(axes, measurements, labels, "KL to the initial policy (nats)", "mean reward (standard deviations)", "o")


CLAIM = Claim(
    id="G2",
    sentence="Tiny Gemma 3: a moving average as J-BOND's anchor gives the reward of a periodic one at a lower KL.",
    source="BOND (arXiv 2407.14622), section 6 and figure 5",
    setting={**jbond_ways.SETTING, "anchor_every": 20},
    quick={**jbond_ways.QUICK, "anchor_every": 2},
    run=run,
    judge=judge,
    draw=draw,
    names=trajectory.NAMES,
)
