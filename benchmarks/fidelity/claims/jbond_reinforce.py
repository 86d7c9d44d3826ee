"""J-BOND against REINFORCE with a fixed KL penalty: reward along the way, where both have gone equally far."""

from collections.abc import Sequence
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.curves import at
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys.bandit import copy_of, curves_of, jbond, make_bandit, reinforce, trace

RATES = (0.02, 0.005)
PENALTIES = (0.01, 0.1, 1.0)
LEVELS = (1.0, 1.5, 2.0)


def run(setting: Setting, seed: int) -> Measured:
    """Train each from one reference with equal random numbers."""
    bandit = make_bandit(seed, tuple(setting["widths"]), setting["prompts"])
    options = {name: setting[name] for name in ("every", "steps", "batch", "learning_rate")}
    algorithms = {f"J-BOND {rate}": jbond(anchor_rate=rate) for rate in RATES}
    algorithms |= {f"REINFORCE {penalty}": reinforce(penalty) for penalty in PENALTIES}  # type: ignore[misc]
    traces = {name: trace(copy_of(bandit.reference), bandit, algorithm, seed, **options)
              for name, algorithm in algorithms.items()}  # fmt: skip
    return Measured({f"{name} KL": points[-1][2] for name, points in traces.items()}, curves_of(traces))


def judge(measurements: Sequence[Measured]) -> Verdict:
    """At each KL, the better rate of J-BOND against the best REINFORCE that comes so far; and how straight KL rises."""

    def best(one: Measured, kind: str, level: float) -> float:
        values = [
            at(curve, level) for name, curve in one.curves.items() if name.split()[0] == kind and name.count(" ") == 1
        ]
        return max((value for value in values if value == value), default=float("nan"))

    def bend(one: Measured, name: str) -> float:
        """KL half-way over KL at the end: 1/2 on a straight line."""
        curve = one.curves[f"{name} KL"]
        return at(curve, curve[-1][0] / 2) / curve[-1][1]

    names, levels = [f"J-BOND {rate}" for rate in RATES], (0.4, *LEVELS, 3.0)
    return graded(
        "J-BOND has the higher reward at equal KL than REINFORCE with any penalty, and its KL rises about linearly",
        [
            "at KL "
            + ", ".join(f"{x:g}: {best(one, 'J-BOND', x):.3f} against {best(one, 'REINFORCE', x):.3f}" for x in levels)
            + f"; KL half-way over KL at the end {'/'.join(f'{bend(one, name):.2f}' for name in names)}, "
            f"REINFORCE 0.1 {bend(one, 'REINFORCE 0.1'):.2f}"
            for one in measurements
        ],
        {
            **{
                f"J-BOND is ahead at KL {x:g}": [
                    best(one, "J-BOND", x) > best(one, "REINFORCE", x) for one in measurements
                ]
                for x in levels
            },
            "J-BOND's KL half-way is 0.4 to 0.6 of the last at rate 0.005": [
                0.4 < bend(one, "J-BOND 0.005") < 0.6 for one in measurements
            ],
            "a penalty of 1 stops REINFORCE below KL 1": [one.numbers["REINFORCE 1.0 KL"] < 1 for one in measurements],
        },
        "Along the way, at equal KL, with the better of two anchor rates. At a low KL a strong penalty is ahead: so "
        "few actions let REINFORCE come near the exact optimum for its penalty, which no method passes. J-BOND's KL "
        "starts slowly, while its anchor has not yet fallen behind, and is nearer to a line later; REINFORCE's makes "
        "most of its way early.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Reward over KL."""
    labels = {f"J-BOND {rate}": f"J-BOND, anchor rate {rate:g}" for rate in RATES}
    labels |= {f"REINFORCE {penalty}": f"REINFORCE, KL weight {penalty:g}" for penalty in PENALTIES}
    draw_curves(axes, measurements, labels, "KL to the reference (nats)", "mean reward (standard deviations)")


CLAIM = Claim(
    id="B3c",
    sentence="J-BOND has a better reward at equal KL than REINFORCE with any KL weight, and its KL rises linearly.",
    source="BOND (arXiv 2407.14622), section 6 and figure 7",
    setting={
        "widths": (16, 64, 128), "prompts": 512, "batch": 128, "steps": 700, "learning_rate": 2e-3, "every": 20,
    },
    quick={"steps": 240},
    run=run,
    judge=judge,
    draw=draw,
)  # fmt: skip
