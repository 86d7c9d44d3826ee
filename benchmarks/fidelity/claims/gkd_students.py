"""GKD: what a student that cannot be its teacher becomes, by divergence and by whose text it is taught on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.toys.students import OWN, QUICK, SETTING, report_of

JSD: Mapping[str, Any] = {"divergence": "jsd"}
RUNS: Mapping[str, Mapping[str, Any]] = {
    "forward, data": {},
    "reverse, data": {"divergence": "reverse"},
    "forward, own": OWN,
    "jsd 0.5, own": {**JSD, "jsd_beta": 0.5, **OWN},
    "jsd 0.9, own": {**JSD, "jsd_beta": 0.9, **OWN},
    "reverse, own": {"divergence": "reverse", **OWN},
}
MEASURES = ("teacher", "entropy", "unlikely", "kl", "nll")
SEEKING = ("jsd 0.5, own", "jsd 0.9, own", "reverse, own")


def run(setting: Setting, seed: int) -> Measured:
    """Teach the same student in each way."""
    numbers: dict[str, float] = {}
    for name, options in RUNS.items():
        report = asdict(report_of({"temperature": setting["temperature"], **options}, setting, seed))
        numbers |= {f"{name}: {measure}": report[measure] for measure in MEASURES}
    return Measured(numbers)


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Quality of what the students write, its diversity, and what their own text adds."""

    def all_of(measure: str, better: str, worse: str, sign: int = 1) -> list[bool]:
        return [
            sign * one.numbers[f"{better}: {measure}"] > sign * one.numbers[f"{worse}: {measure}"]
            for one in measurements
        ]

    checks = {}
    for name in SEEKING:
        checks[f"{name}: likelier to the teacher than forward, own"] = all_of("teacher", name, "forward, own")
        checks[f"{name}: less entropy than forward, own"] = all_of("entropy", name, "forward, own", -1)
    for kind in ("forward", "reverse"):
        checks[f"{kind}: likelier to the teacher on its own text than on data"] = all_of(
            "teacher", f"{kind}, own", f"{kind}, data"
        )
    checks["forward on data has the lowest KL(teacher || student) on data"] = [
        all(one.numbers["forward, data: kl"] <= one.numbers[f"{name}: kl"] for name in RUNS) for one in measurements
    ]
    return graded(
        "on its own text a student that learns by JSD or reverse KL writes what the teacher finds likelier, with less "
        "entropy, than by forward KL; its own text makes it better than data does",
        [
            "teacher's log-probability, entropy, share below 0.01: "
            + "; ".join(
                f"{name} {one.numbers[f'{name}: teacher']:.2f}, {one.numbers[f'{name}: entropy']:.2f}, "
                f"{one.numbers[f'{name}: unlikely']:.3f}"
                for name in RUNS
            )
            for one in measurements
        ],
        checks,
        "Numbers are nats a token of the students' own completions. This is the second setting: in the first, with "
        "students of twice the width and the teacher's temperature 1, students nearly equalled the teacher, and the "
        "divergences on their own text were within 0.07 of each other on the pilot's seed 99, forward KL ahead of "
        "reverse. What seeks modes needs a student that cannot have them all.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Each student by its entropy and by what the teacher thinks of it."""
    for name in RUNS:
        places = [(one.numbers[f"{name}: entropy"], one.numbers[f"{name}: teacher"]) for one in measurements]
        axes.plot(*zip(*places, strict=True), "s" if name.endswith("data") else "o", label=name)
    axes.set_xlabel("entropy of the student (nats a token)")
    axes.set_ylabel("teacher's log-probability of its text (nats a token)")
    axes.legend()


CLAIM = Claim(
    id="D1",
    sentence="On its own text, by JSD or reverse KL, a student writes what its teacher finds likelier, with less "
    "entropy.",
    source="GKD (arXiv 2306.13649), sections 3 and 4, figure 4",
    setting={**SETTING, "width": 8, "temperature": 0.5},
    quick=QUICK,
    run=run,
    judge=judge,
    draw=draw,
)
