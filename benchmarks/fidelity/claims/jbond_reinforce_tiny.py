"""J-BOND against REINFORCE with a fixed KL penalty, on tiny Gemma 3 policies through the project's own trainer."""

from collections.abc import Sequence
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.curves import at, mean_gap
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys import jbond_ways, trajectory
from benchmarks.fidelity.toys.jbond_ways import curves_of, jbond_way, numbers_of
from benchmarks.fidelity.toys.trajectory import way_of

PENALTIES = (0.001, 0.01, 0.1, 1.0)
LEVELS = (0.5, 1.0, 2.0, 3.0)


def run(setting: Setting, seed: int) -> Measured:
    """Train each from one SFT policy on the same prompts, with three completions a prompt and step."""
    ways = {"J-BOND": jbond_way(setting, seed)}
    for penalty in PENALTIES:
        options = {
            "samples": 3,
            "kl": penalty,
            "learning_rate": setting["reinforce_learning_rate"],
            "steps": setting["reinforce_steps"],
        }
        ways[f"REINFORCE {penalty}"] = way_of("reinforce", options, setting, seed)
    curves = {name: curve for key, way in ways.items() for name, curve in curves_of(key, way).items()}
    return Measured({name: n for key, way in ways.items() for name, n in numbers_of(key, way).items()}, curves)


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Fronts at equal KL, each penalty alone; how straight J-BOND's KL is and how far each REINFORCE goes."""
    weak, names = PENALTIES[:-1], [f"REINFORCE {penalty}" for penalty in PENALTIES]

    def bend(one: Measured, name: str) -> float:
        """KL half-way over KL at the end: 1/2 on a straight line."""
        curve = one.curves[f"{name} KL"]
        return at(curve, curve[-1][0] / 2) / curve[-1][1]

    def gap(one: Measured, name: str) -> float:
        return mean_gap(one.curves["J-BOND"], one.curves[name], LEVELS[0])

    def pace(one: Measured, name: str) -> float:
        """KL a step."""
        return one.numbers[f"{name} KL"] / one.curves[f"{name} KL"][-1][0]

    def table(one: Measured, level: float) -> str:
        return "/".join(f"{at(one.curves[name], level):.2f}" for name in ("J-BOND", *names))

    return graded(
        "J-BOND has the higher reward at equal KL than REINFORCE with any weight, its KL rises about linearly; "
        "REINFORCE's runs away for small weights, and a weight of 1 stops it early",
        [
            f"reward of J-BOND and REINFORCE {'/'.join(map(str, PENALTIES))} at KL "
            + ", ".join(f"{level:g}: {table(one, level)}" for level in LEVELS)
            + f"; last KL {'/'.join(format(one.numbers[f'{name} KL'], '.1f') for name in ('J-BOND', *names))}; "
            f"J-BOND's half-way over its last {bend(one, 'J-BOND'):.2f}"
            for one in measurements
        ],
        {
            **{
                f"from KL {LEVELS[0]:g} on J-BOND is ahead of weight {penalty:g} in the mean": [
                    gap(one, f"REINFORCE {penalty}") > 0 for one in measurements
                ]
                for penalty in weak
            },
            "J-BOND's KL half-way is 0.4 to 0.6 of the last": [0.4 < bend(one, "J-BOND") < 0.6 for one in measurements],
            "a step of REINFORCE with weight 0.001 or 0.01 goes over twice as far as one of J-BOND": [
                min(pace(one, name) for name in names[:2]) > 2 * pace(one, "J-BOND") for one in measurements
            ],
            "weight 1 stops below KL 1": [one.numbers[f"{names[-1]} KL"] < 1 for one in measurements],
        },
        "Both sample three completions of each prompt per step, but J-BOND has 100 steps and REINFORCE 48, so "
        "J-BOND has twice the completions and three times the learning rate, and no KL weight lies between "
        "0.1 and 1. Learning rates are of a pilot on seed 99, where REINFORCE with weight 0.1 was 0.03 higher "
        "at equal KL with a third of its rate, and still below J-BOND beyond KL 1.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Reward over KL, as far as J-BOND goes and a little further."""
    labels = {"J-BOND": "J-BOND"} | {f"REINFORCE {p}": f"REINFORCE, KL weight {p:g}" for p in PENALTIES}
    draw_curves(axes, measurements, labels, "KL to the initial policy (nats)", "mean reward (standard deviations)", "o")
    axes.set_xlim(0, 1.3 * max(one.numbers["J-BOND KL"] for one in measurements))


CLAIM = Claim(
    id="G1",
    sentence="Tiny Gemma 3: J-BOND has a better reward at equal KL than REINFORCE with any KL weight, and its KL "
    "rises linearly.",
    source="BOND (arXiv 2407.14622), section 6 and figure 7",
    setting={**jbond_ways.SETTING, "reinforce_learning_rate": 1e-4, "reinforce_steps": 48},
    quick={**jbond_ways.QUICK, "reinforce_steps": 4},
    run=run,
    judge=judge,
    draw=draw,
    names=trajectory.NAMES,
)
