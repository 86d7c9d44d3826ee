"""A distilled student against one that was fine-tuned on the same demonstrations, few and many."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.toys.students import QUICK, SETTING, report_of

KINDS = ("distill", "sft")
MEASURES = ("kl", "nll", "teacher", "gold")


def run(setting: Setting, seed: int) -> Measured:
    """Measure the same student, demonstrations and steps, with the teacher's targets and without."""
    numbers: dict[str, float] = {}
    for rows in setting["rows"]:
        for kind in KINDS:
            report = asdict(report_of({}, setting, seed, rows=rows, kind=kind))
            numbers |= {f"{kind} on {rows}: {measure}": report[measure] for measure in MEASURES}
    return Measured(numbers)


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Held-out KL to the teacher, and what the language itself says of the students' text."""
    sizes = sorted({int(name.split(":")[0].split()[-1]) for name in measurements[0].numbers})

    def gap(one: Measured, rows: int, measure: str) -> float:
        return one.numbers[f"distill on {rows}: {measure}"] - one.numbers[f"sft on {rows}: {measure}"]

    checks = {}
    for rows in sizes:
        checks[f"{rows} demonstrations: lower KL to the teacher"] = [gap(one, rows, "kl") < 0 for one in measurements]
        checks[f"{rows} demonstrations: lower held-out NLL"] = [gap(one, rows, "nll") < 0 for one in measurements]
        checks[f"{rows} demonstrations: higher gold score of its own text"] = [
            gap(one, rows, "gold") > 0 for one in measurements
        ]
    return graded(
        "the distilled student is nearer to the teacher, has a lower held-out NLL and a higher gold score, above all "
        "where demonstrations are few",
        [
            "; ".join(
                f"{rows} demonstrations, "
                + ", ".join(
                    f"{measure} {one.numbers[f'distill on {rows}: {measure}']:.3f} against "
                    f"{one.numbers[f'sft on {rows}: {measure}']:.3f}"
                    for measure in ("kl", "nll", "gold")
                )
                for rows in sizes
            )
            for one in measurements
        ],
        checks,
        "Distilled against fine-tuned, in nats a token; gold is the log-probability in the language itself.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """KL to the teacher by demonstrations."""
    sizes = sorted({int(name.split(":")[0].split()[-1]) for name in measurements[0].numbers})
    for kind, colour in zip(KINDS, ("tab:blue", "tab:orange"), strict=True):
        for i, one in enumerate(measurements):
            values = [one.numbers[f"{kind} on {rows}: kl"] for rows in sizes]
            axes.plot(sizes, values, "o-", color=colour, linewidth=0.8, label=None if i else kind)
    axes.set_xscale("log")
    axes.set_xlabel("demonstrations")
    axes.set_ylabel("held-out KL(teacher || student) (nats a token)")
    axes.legend()


CLAIM = Claim(
    id="D1b",
    sentence="A distilled student is nearer to its teacher and writes better than one fine-tuned on the same data.",
    source="GKD (arXiv 2306.13649), section 4; Gemma 2 (arXiv 2408.00118), section 5 and table 6",
    setting={**SETTING, "rows": (100, 3000)},
    quick=QUICK,
    run=run,
    judge=judge,
    draw=draw,
)
