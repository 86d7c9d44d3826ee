"""J-BOND's moving average as its anchor, against one that is renewed every 50 steps."""

from collections.abc import Sequence
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.curves import at
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys.bandit import copy_of, curves_of, jbond, make_bandit, trace

LEVELS = (1.0, 2.0, 3.0)


def run(setting: Setting, seed: int) -> Measured:
    """Train both from one reference with equal random numbers."""
    bandit = make_bandit(seed, tuple(setting["widths"]), setting["prompts"])
    options = {name: setting[name] for name in ("every", "steps", "batch", "learning_rate")}
    algorithm = jbond(anchor_rate=setting["anchor_rate"])
    traces = {
        name: trace(copy_of(bandit.reference), bandit, algorithm, seed, **options, period=period)
        for name, period in (("EMA", None), ("periodic", setting["period"]))
    }
    numbers = {f"{name} {what}": points[-1][1 + place] for name, points in traces.items()
               for place, what in enumerate(("reward", "KL"))}  # fmt: skip
    return Measured(numbers, curves_of(traces))


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Equal reward at lower KL at the last step; more reward at equal KL."""

    def gain(one: Measured, level: float) -> float:
        return at(one.curves["EMA"], level) - at(one.curves["periodic"], level)

    reached = [
        level
        for level in LEVELS
        if all(level < min(n for k, n in o.numbers.items() if "KL" in k) for o in measurements)
    ]
    return graded(
        "the same reward at the last step (within 5%), at a lower KL; so a higher reward at equal KL",
        [
            f"reward {one.numbers['EMA reward']:.2f} at KL {one.numbers['EMA KL']:.2f}, periodic "
            f"{one.numbers['periodic reward']:.2f} at {one.numbers['periodic KL']:.2f}; at equal KL "
            + ", ".join(f"{gain(one, level):+.3f} (KL {level:g})" for level in reached)
            for one in measurements
        ],
        {
            "KL is lower at the last step": [
                one.numbers["EMA KL"] < one.numbers["periodic KL"] for one in measurements
            ],
            "reward is within 5% at the last step": [
                abs(one.numbers["EMA reward"] / one.numbers["periodic reward"] - 1) < 0.05 for one in measurements
            ],
            **{
                f"reward at KL {level:g} is higher": [gain(one, level) > 0 for one in measurements] for level in reached
            },
        },
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Reward over KL."""
    labels = {"EMA": "moving average, rate 0.02", "periodic": "renewed every 50 steps"}
    draw_curves(axes, measurements, labels, "KL to the reference (nats)", "mean reward (standard deviations)")


CLAIM = Claim(
    id="B3a",
    sentence="A moving average as J-BOND's anchor gives the reward of a periodic anchor at a lower KL.",
    source="BOND (arXiv 2407.14622), section 6 and figure 5",
    setting={
        "widths": (16, 64, 128), "prompts": 512, "batch": 128, "steps": 500, "learning_rate": 2e-3, "every": 25,
        "anchor_rate": 0.02, "period": 50,
    },
    quick={"steps": 250},
    run=run,
    judge=judge,
    draw=draw,
)  # fmt: skip
