"""Small and large teacher of one student: which is better after a short and after a long distillation."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys.students import QUICK, SETTING, demonstrations, measured, narrow, taught, teacher_of

SIZES = ("small", "large")


def run(setting: Setting, seed: int) -> Measured:
    """Teach a student from random weights, and measure it on its way."""
    numbers, curves = {}, {}
    rows = demonstrations(seed, 3000)
    for size in SIZES:
        teacher = teacher_of(size, setting, seed)
        numbers[f"{size} teacher"] = measured(teacher, teacher, seed, setting["asked"]).nll
        with tempfile.TemporaryDirectory() as folder:
            student = narrow(Path(folder) / "random", setting["width"], seed)
            steps, kept = setting["steps"], [step for step in setting["kept"] if step < setting["steps"]]
            fields = {"steps": steps, "batch": setting["batch"], "learning_rate": setting["learning_rate"]}
            fields |= {"schedule": "constant", "warmup": 10, "keep_steps": kept}
            last = taught(Path(folder) / "run", student, teacher, rows, seed, **fields)
            folders = {**{step: Path(folder) / "run" / "kept" / str(step) for step in kept}, steps: last}
            found = {step: measured(at, teacher, seed, setting["asked"]).nll for step, at in folders.items()}
        curves[size] = [(float(step), nll) for step, nll in found.items()]
    return Measured(numbers, curves)


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Held-out loss of the students at the first and at the last point."""

    def ahead(one: Measured, point: int) -> float:
        """Loss under the small teacher less that under the large one."""
        return one.curves["small"][point][1] - one.curves["large"][point][1]

    return graded(
        "after few steps the small teacher's student has the lower held-out loss, after many the large one's",
        [
            f"teachers {one.numbers['small teacher']:.3f} and {one.numbers['large teacher']:.3f}; small less large: "
            + ", ".join(f"{ahead(one, i):+.3f} after {step:g}" for i, (step, _) in enumerate(one.curves["small"]))
            for one in measurements
        ],
        {
            "the large teacher is the better model": [
                one.numbers["large teacher"] < one.numbers["small teacher"] for one in measurements
            ],
            "few steps: the small teacher's student is ahead": [ahead(one, 0) < 0 for one in measurements],
            "many steps: the large teacher's student is ahead": [ahead(one, -1) > 0 for one in measurements],
        },
        "Loss is -log p of completions of the language, in nats a token. The paper's short horizon is billions of "
        "tokens of pre-training; here both are hundreds of steps.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Held-out loss over steps."""
    labels = {"small": "small teacher", "large": "large teacher"}
    draw_curves(axes, measurements, labels, "steps of distillation", "held-out loss (nats a token)")


CLAIM = Claim(
    id="D5",
    sentence="A small teacher is better for a short distillation, a large one for a long one.",
    source="Gemma 3 (arXiv 2503.19786), section 5.2 and figure 8",
    setting={**SETTING, "steps": 160, "learning_rate": 5e-3, "kept": (20, 40, 80, 120)},
    quick={**QUICK, "steps": 4, "kept": (2,)},
    run=run,
    judge=judge,
    draw=draw,
)
