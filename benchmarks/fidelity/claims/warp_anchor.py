"""WARP's first stage: a KL to a moving average, against a KL to the initial policy at several weights."""

from collections.abc import Sequence
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.curves import at
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys.bandit import curves_of
from benchmarks.fidelity.toys.warp import inner_run, warp_bandit

MOVING = (0.5, 1.0)
FIXED = (0.01, 0.1, 0.5, 1.0)
LEVELS = (1.0, 1.5, 2.0)


def run(setting: Setting, seed: int) -> Measured:
    """Train each from one reference with equal random numbers."""
    bandit = warp_bandit(setting, seed)
    runs = [("EMA", kl, "anchor") for kl in MOVING] + [("SFT", kl, "initial") for kl in FIXED]
    traces = {f"{name} {kl}": inner_run(bandit, bandit.reference, setting, kl, seed, anchor)[1]
              for name, kl, anchor in runs}  # fmt: skip
    numbers = {f"{name} {what}": points[-1][1 + place] for name, points in traces.items()
               for place, what in enumerate(("reward", "KL"))}  # fmt: skip
    return Measured(numbers, curves_of(traces))


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Judge the fronts at equal KL, and where each run stops."""

    def best(one: Measured, kind: str, level: float) -> float:
        values = [at(one.curves[f"{kind} {kl}"], level) for kl in (MOVING if kind == "EMA" else FIXED)]
        return max((value for value in values if value == value), default=float("nan"))

    def late(one: Measured, name: str) -> float:
        """Share of the reward's gain that was made in the last third of the steps."""
        curve = one.curves[f"{name} reward"]
        return (curve[-1][1] - at(curve, curve[-1][0] * 2 / 3)) / (curve[-1][1] - curve[0][1])

    return graded(
        "EMA's front is at or above that of every SFT anchor; with a strong SFT anchor reward stops early",
        [
            "reward at KL "
            + ", ".join(f"{x:g}: {best(one, 'EMA', x):.2f} against {best(one, 'SFT', x):.2f}" for x in LEVELS)
            + f"; weight 1: EMA {one.numbers['EMA 1.0 reward']:.2f} at KL {one.numbers['EMA 1.0 KL']:.2f}, "
            f"SFT {one.numbers['SFT 1.0 reward']:.2f} at {one.numbers['SFT 1.0 KL']:.2f}"
            for one in measurements
        ],
        {
            **{
                f"EMA's front is higher at KL {x:g}": [
                    best(one, "EMA", x) > best(one, "SFT", x) for one in measurements
                ]
                for x in LEVELS
            },
            "an SFT anchor of weight 1 stops: under 5% of the gain in the last third": [
                late(one, "SFT 1.0") < 0.05 for one in measurements
            ],
            "with equal weights EMA ends at a higher reward": [
                all(one.numbers[f"EMA {kl} reward"] > one.numbers[f"SFT {kl} reward"] for kl in MOVING)
                for one in measurements
            ],
        },
        "KL weights are in standard deviations of the reward, so that the paper's 0.1 is weak here. Near the start a "
        "strong fixed anchor gives the exact trade-off for its weight, and nothing can be above it.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Reward over KL."""
    labels = {f"EMA {kl}": f"moving average, KL weight {kl:g}" for kl in MOVING}
    labels |= {f"SFT {kl}": f"initial policy, KL weight {kl:g}" for kl in FIXED}
    draw_curves(axes, measurements, labels, "KL to the initial policy (nats)", "mean reward (standard deviations)")


CLAIM = Claim(
    id="P1",
    sentence="A KL to a moving average of the policy gives a better front of reward over KL than one to the SFT start.",
    source="WARP (arXiv 2406.16768), section 3.1, observation 1, figure 3",
    setting={
        "widths": (24, 96, 96, 64), "prompts": 4096, "held_out": 2048, "batch": 64, "steps": 480,
        "learning_rate": 2e-3, "every": 20,
    },
    quick={"steps": 240},
    run=run,
    judge=judge,
    draw=draw,
)  # fmt: skip
