"""Gemma 3's sampled logits: what K entries a token teach, by how they are drawn and weighed."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.toys.students import QUICK, SETTING, report_of
from gemsmith.policy.text.tokenizer import VOCABULARY_SIZE

MODES = ("multinomial_counts", "gumbel_renorm", "topk")
WHOLE = {"mode": "topk", "sampled_logits": VOCABULARY_SIZE}
MEASURES = ("kl", "tail", "entropy")
SHARPENED = ("gumbel_renorm", "whole")


def run(setting: Setting, seed: int) -> Measured:
    """Teach the same student by each mode, and by the whole distribution; by two of these from a sharpened teacher."""
    ways = {mode: {"mode": mode, "sampled_logits": setting["k"]} for mode in MODES} | {"whole": WHOLE}
    tried = [(name, 1.0) for name in ways] + [(name, 0.5) for name in SHARPENED]
    numbers: dict[str, float] = {}
    for name, temperature in tried:
        report = asdict(report_of({**ways[name], "temperature": temperature}, setting, seed))
        numbers |= {f"{name} at {temperature:g}: {measure}": report[measure] for measure in MEASURES}
    return Measured(numbers)


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Judge the final distance of each mode from the teacher, and its treatment of the tail."""

    def excess(one: Measured, mode: str, temperature: float = 1.0) -> float:
        return one.numbers[f"{mode} at {temperature:g}: kl"] - one.numbers[f"whole at {temperature:g}: kl"]

    def tail(one: Measured, mode: str) -> float:
        return one.numbers[f"{mode} at 1: tail"] / one.numbers["whole at 1: tail"]

    return graded(
        "counts end nearest to the teacher, then draws without replacement, then the likeliest; the first keeps the "
        "tail, the others thin it; from a sharpened teacher they are less far apart",
        [
            "; ".join(
                f"{mode} KL {one.numbers[f'{mode} at 1: kl']:.3f}, tail {one.numbers[f'{mode} at 1: tail']:.2f}"
                for mode in (*MODES, "whole")
            )
            + "; sharpened: "
            + ", ".join(f"{mode} KL {one.numbers[f'{mode} at 0.5: kl']:.3f}" for mode in SHARPENED)
            for one in measurements
        ],
        {
            "counts are nearer than draws without replacement": [
                excess(one, "multinomial_counts") < excess(one, "gumbel_renorm") for one in measurements
            ],
            "draws without replacement are nearer than the likeliest": [
                excess(one, "gumbel_renorm") < excess(one, "topk") for one in measurements
            ],
            "the gap of draws without replacement is smaller from a sharpened teacher": [
                excess(one, "gumbel_renorm", 0.5) < excess(one, "gumbel_renorm") for one in measurements
            ],
            "counts keep the tail to 20%": [0.8 < tail(one, "multinomial_counts") < 1.25 for one in measurements],
            "the other modes thin the tail": [
                tail(one, "gumbel_renorm") < 0.9 and tail(one, "topk") < 0.9 for one in measurements
            ],
        },
        "The tail is all but the teacher's 8 likeliest entries: the student's mass there over the teacher's.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """KL to the teacher over the tail, a point for each seed."""
    for name in (*MODES, "whole"):
        places = [(one.numbers[f"{name} at 1: tail"], one.numbers[f"{name} at 1: kl"]) for one in measurements]
        axes.plot(*zip(*places, strict=True), "o", label=name)
    axes.set_xlabel("student's mass in the tail over the teacher's")
    axes.set_ylabel("held-out KL(teacher || student) (nats a token)")
    axes.legend()


CLAIM = Claim(
    id="D2",
    sentence="Sampled logits weighed by counts teach the teacher's distribution; drawn without replacement and "
    "renormalised they sharpen it.",
    source="Gemma 3 (arXiv 2503.19786), section 2.2, read in three ways",
    setting={**SETTING, "k": 8},
    quick=QUICK,
    run=run,
    judge=judge,
    draw=draw,
)
