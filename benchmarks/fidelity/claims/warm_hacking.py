"""Policies that are trained against one reward model, the ensemble and WARM, and what the gold reward says of them."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median_low
from typing import Any

from benchmarks.fidelity.claim import Claim, Curve, Measured, Setting, Verdict, graded
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys.corrupted import QUICK, SETTING, average_of, data_of, members, policy_of
from benchmarks.fidelity.toys.hacking import Serve, learn
from benchmarks.fidelity.toys.reward_scores import accuracies, scorer_of

SINGLE, ENSEMBLE, WARM = "one member", "ENS", "WARM"


def run(setting: Setting, seed: int) -> Measured:
    """Learn from each reward with the same prompts and random numbers; gold and learnt reward over the KL.

    The one member is that of median held-out accuracy; with `singles` it is the mean of policies that learn from these.
    """
    models, data = members(setting, seed), data_of(setting, seed)
    policy = policy_of(setting, seed)
    scorer = scorer_of(setting, seed, data)
    held_out = [accuracies(scorer.of(f"member {m}", path), data)["held out"] for m, path in enumerate(models)]
    singles = setting.get("singles") or [held_out.index(median_low(held_out))]
    rewards: dict[str, list[tuple[Path, Serve]]] = {
        SINGLE: [(models[m], "average") for m in singles],
        ENSEMBLE: [(average_of(models), "mean")],
        WARM: [(average_of(models), "average")],
    }
    numbers: dict[str, float] = {"member": fmean(float(models[m].name) for m in singles)}
    curves: dict[str, Curve] = {}
    for name, served in rewards.items():
        runs = [_learnt(policy, output, serve, setting, seed) for output, serve in served]
        gold, learnt, kl = (
            _smooth([fmean(rows[step][key] for rows in runs) for step in range(setting["steps"])], setting["window"])
            for key in ("control/gold", "reward", "kl_to_initial")
        )
        curves |= {
            f"{name}, gold": list(zip(kl, gold, strict=True)),
            f"{name}, learnt": list(zip(kl, learnt, strict=True)),
        }
        peak = max(range(len(gold)), key=gold.__getitem__)
        numbers |= {
            f"{name}, first gold": gold[0],
            f"{name}, peak gold": gold[peak],
            f"{name}, KL at the peak": kl[peak],
            f"{name}, step of the peak": float((peak + 0.5) * setting["window"]),
            f"{name}, last gold": gold[-1],
            f"{name}, last learnt": learnt[-1],
            f"{name}, last KL": kl[-1],
            f"{name}, mean gold": fmean(gold),
        }
    return Measured(numbers, curves)


def _learnt(policy: Path, output: Path, serve: Serve, setting: Setting, seed: int) -> list[dict[str, float]]:
    folder = Path(tempfile.mkdtemp(prefix="hacking-"))
    try:
        return learn(policy, output, serve, setting, seed, folder)
    finally:
        shutil.rmtree(folder)


def _smooth(values: Sequence[float], window: int) -> list[float]:
    """Means of so many steps, one after the other."""
    return [fmean(values[i : i + window]) for i in range(0, len(values) - window + 1, window)]


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Judge that the peak of gold, and its final value, are higher with WARM than with the ensemble and with one
    member.
    """

    def over(first: str, second: str, what: str) -> list[float]:
        return [one.numbers[f"{first}, {what}"] - one.numbers[f"{second}, {what}"] for one in measurements]

    remark = "Differences of gold, mean and range over seeds: " + "; ".join(
        f"{first} minus {second}, {what}: {fmean(gaps):+.2f} ({min(gaps):+.2f} to {max(gaps):+.2f})"
        for first, second in ((WARM, SINGLE), (WARM, ENSEMBLE), (ENSEMBLE, SINGLE))
        for what in ("peak gold", "last gold")
        for gaps in (over(first, second, what),)
    )
    numbers = ", ".join(f"{one.numbers['member']:g}" for one in measurements)
    remark += f". The one member is that of median held-out accuracy, or the mean of several: number {numbers}"
    return graded(
        "the gold reward peaks higher and ends higher with WARM than with the ensemble, and with that than with one "
        "member",
        [
            "; ".join(
                f"{name}: gold {one.numbers[f'{name}, first gold']:.2f}, peak {one.numbers[f'{name}, peak gold']:.2f} "
                f"at {one.numbers[f'{name}, KL at the peak']:.1f} nats, end {one.numbers[f'{name}, last gold']:.2f} "
                f"at {one.numbers[f'{name}, last KL']:.1f} nats"
                for name in (SINGLE, ENSEMBLE, WARM)
            )
            for one in measurements
        ],
        {
            "WARM peaks above one member": [gap > 0 for gap in over(WARM, SINGLE, "peak gold")],
            "WARM peaks above ENS": [gap > 0 for gap in over(WARM, ENSEMBLE, "peak gold")],
            "WARM ends above one member": [gap > 0 for gap in over(WARM, SINGLE, "last gold")],
            "WARM ends above ENS": [gap > 0 for gap in over(WARM, ENSEMBLE, "last gold")],
        },
        remark,
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Gold over KL, less that of the first steps: seeds differ in their gold reward."""
    labels = {f"{name}, gold": name for name in (SINGLE, ENSEMBLE, WARM)}
    less = [
        Measured({}, {name: [(kl, gold - one.curves[name][0][1]) for kl, gold in one.curves[name]] for name in labels})
        for one in measurements
    ]
    y = "gold reward of the policy less that at first"
    draw_curves(axes, less, labels, "KL to the initial policy, in nats", y, marker="o")
    axes.axhline(0, color="#888888", linewidth=0.8)


CLAIM = Claim(
    id="W5",
    sentence="A policy that learns from WARM reaches a higher gold reward, and keeps it longer, than one that learns "
    "from the ensemble or from one reward model.",
    source="WARM (arXiv 2401.12187), figures 1b and 8",
    setting={**SETTING, "steps": 60, "prompts": 32, "samples": 2, "rate": 3e-4, "kl": 0.01, "window": 4},
    quick={**QUICK, "steps": 8},
    run=run,
    judge=judge,
    draw=draw,
    names=("gemsmith.rl.algorithms.reinforce",),
)
