"""LITI: points between the start and the end of training, against the points that training passed."""

from collections.abc import Sequence
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.curves import at
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys.warp import inner_run, line, merged, warp_bandit

RATES = tuple(rate / 20 for rate in range(21))
LEVELS = (0.25, 0.5, 1.0)


def run(setting: Setting, seed: int) -> Measured:
    """Two runs; the line to the end of the first, and to the SLERP of both."""
    bandit = warp_bandit(setting, seed)
    finals, traces = zip(
        *[inner_run(bandit, bandit.reference, setting, setting["kl"], 2 * seed + number) for number in range(2)],
        strict=True,
    )
    merge, angle = merged(bandit.reference, finals)
    curves = {f"trajectory {number}": [(kl, reward) for _, reward, kl in trace] for number, trace in enumerate(traces)}
    curves["line, M = 1"] = line(bandit, bandit.reference, finals[0], RATES)
    curves["line, M = 2"] = line(bandit, bandit.reference, merge, RATES)
    return Measured({"angle": angle, "KL": traces[0][-1][2], "reward": traces[0][-1][1]}, curves)


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Reward at equal KL, line against trajectory."""

    def gain(one: Measured, name: str, level: float) -> float:
        return at(one.curves[name], level) - at(one.curves["trajectory 0"], level)

    return graded(
        "at equal KL the line has the higher reward; with one run less so than with a merge of two",
        [
            "above the trajectory at KL "
            + ", ".join(f"{x:g}: {gain(one, 'line, M = 1', x):+.3f}" for x in LEVELS)
            + f"; merge of two (angle {one.numbers['angle']:.0f}°) "
            + ", ".join(f"{gain(one, 'line, M = 2', x):+.3f}" for x in LEVELS)
            for one in measurements
        ],
        {
            **{
                f"the line of one run is above its trajectory at KL {x:g}": [
                    gain(one, "line, M = 1", x) > 0 for one in measurements
                ]
                for x in LEVELS
            },
            **{
                f"the line of two is above that of one at KL {x:g}": [
                    gain(one, "line, M = 2", x) > gain(one, "line, M = 1", x) for one in measurements
                ]
                for x in LEVELS
            },
        },
        "Batches of 128 without noise: the runs are much alike, so that merging them adds little.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Reward over KL."""
    labels = {
        "trajectory 0": "along the training",
        "line, M = 1": "line to its end (LITI)",
        "line, M = 2": "line to the SLERP of two runs",
    }
    draw_curves(axes, measurements, labels, "KL to the initial policy (nats)", "mean reward (standard deviations)")


CLAIM = Claim(
    id="P2",
    sentence="Interpolating towards the end of training (LITI) is above the front that training itself passes.",
    source="WARP (arXiv 2406.16768), section 3.3, observation 5, figure 5",
    setting={
        "widths": (24, 96, 96, 64), "prompts": 4096, "held_out": 2048, "batch": 128, "steps": 360,
        "learning_rate": 2e-3, "every": 20, "kl": 0.5,
    },
    quick={"steps": 240},
    run=run,
    judge=judge,
    draw=draw,
)  # fmt: skip
