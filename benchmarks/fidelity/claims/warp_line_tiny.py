"""LITI on tiny Gemma 3 policies: lines to one run and to merges of two and four, against the way that a run takes."""

from collections.abc import Sequence
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.curves import at_kl
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys import tiny_warp
from benchmarks.fidelity.toys.tiny_warp import fronts_of, mean_curve

LABELS = {
    "way": "along the training (mean of four runs)",
    "M = 1": "line to its end (mean of four runs)",
    "M = 2": "line to the SLERP of two (mean of two)",
    "M = 4": "line to the SLERP of four",
}
SHARES = (0.25, 0.5, 0.75)  # of the KL at the end of the runs


def run(setting: Setting, seed: int) -> Measured:
    """Means over runs, so that lines and the way come from the same four trainings; each starts at KL 0."""
    fronts = fronts_of(setting, seed)
    lines = {"M = 1": fronts.lines} | {
        f"M = {size}": [each.line for each in fronts.merges[f"slerp {size}"]] for size in (2, setting["runs"])
    }
    initial = fronts.ways[0][0]
    curves = {"way": mean_curve(fronts.ways)}
    curves |= {name: mean_curve([[initial, *points] for points in found]) for name, found in lines.items()}
    curves |= {f"way {number}": mean_curve([way]) for number, way in enumerate(fronts.ways)}
    curves |= {f"line {number}": mean_curve([[initial, *line]]) for number, line in enumerate(fronts.lines)}
    angles = [angle for each in fronts.merges["slerp 2"] for angle in each.angles]
    return Measured({"KL": curves["way"][-1][0], "angle": sum(angles) / len(angles)}, curves)


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Reward at equal KL: lines against the way, and line against line."""

    def reward(one: Measured, name: str, share: float) -> float:
        return at_kl(one.curves[name], share * one.numbers["KL"])

    def ahead(above: str, below: str, share: float) -> list[bool]:
        return [reward(one, above, share) > reward(one, below, share) for one in measurements]

    names = list(LABELS)
    return graded(
        "at equal KL the line has a higher reward than the training on its way; the more runs are merged, the higher",
        [
            f"angle {one.numbers['angle']:.0f}°; way/M = 1/2/4 "
            + ", ".join(
                f"at KL {share * one.numbers['KL']:.2f}: "
                f"{'/'.join(f'{reward(one, name, share):.3f}' for name in names)}"
                for share in SHARES
            )
            for one in measurements
        ],
        {
            f"{above if above != 'M = 1' else 'the line of one run'} is above {below if below != 'way' else 'the way'} "
            f"at {share:g} of the runs' KL": ahead(above, below, share)
            for below, above in (("way", "M = 1"), ("way", "M = 4"), ("M = 1", "M = 2"), ("M = 2", "M = 4"))
            for share in SHARES
        },
        REMARK,
    )


REMARK = (
    "Means of four runs at the same step or rate; a merge of two is the mean of both pairs. Four prompts a step, with "
    "two completions each, were chosen by a pilot on seed 99, so that noise leads."
)


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Reward over KL."""
    labels = ("KL to the initial policy (nats a completion)", "mean gold reward (standard deviations)")
    draw_curves(axes, measurements, LABELS, *labels, ".")


CLAIM = Claim(
    id="G5",
    sentence="In tiny Gemma 3 policies the line to the merge (LITI) is above the training's way, and rises with M.",
    source="WARP (arXiv 2406.16768), sections 3.2 and 3.3, observation 5, figures 4 and 5",
    setting=tiny_warp.SETTING,
    quick=tiny_warp.QUICK,
    run=run,
    judge=judge,
    draw=draw,
    names=tiny_warp.NAMES,
)
