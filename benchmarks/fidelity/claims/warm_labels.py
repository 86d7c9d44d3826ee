"""WARM on wrong labels: a quarter of the training pairs are swapped, and the average is held against the ensemble."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.figure import draw_numbers
from benchmarks.fidelity.toys.corrupted import QUICK, SETTING, data_of, members
from benchmarks.fidelity.toys.reward_scores import SUBSETS, accuracies, mean_of, scorer_of

NOISE = 0.01  # about the standard error of the difference of two accuracies on the held-out pairs


def groups(members: int) -> dict[int, list[tuple[int, ...]]]:
    """Return the sets of members to average, by their size: disjoint pairs, all but each pair, and all."""
    every = tuple(range(members))
    pairs = [every[m : m + 2] for m in range(0, members, 2)]
    rest = [tuple(m for m in every if m not in pair) for pair in pairs]
    return {2: pairs, **({members - 2: rest} if members > 4 else {}), members: [every]}


def run(setting: Setting, seed: int) -> Measured:
    """Accuracies on each subset."""
    return Measured(compared(members(setting, seed), "", setting, seed))


def compared(models: Sequence[Path], kind: str, setting: Setting, seed: int) -> dict[str, float]:
    """Accuracies on each subset, of averages and ensembles of each size, of the mean member and of the best one.

    The best member is the best on the held-out pairs. `kind` tells the models from others of the same seed.
    """
    data = data_of(setting, seed)
    scorer = scorer_of(setting, seed, data)
    each = [scorer.of(f"{kind}member {m}", model) for m, model in enumerate(models)]
    of_members = [accuracies(rewards, data) for rewards in each]
    found = {"mean member": of_members, "best member": [max(of_members, key=lambda one: one["held out"])]}
    for size, sets in groups(len(models)).items():
        merged = [scorer.of_average(f"{kind}average {chosen}", [models[m] for m in chosen]) for chosen in sets]
        found[f"WARM-{size}"] = [accuracies(rewards, data) for rewards in merged]
        found[f"ENS-{size}"] = [accuracies(mean_of([each[m] for m in chosen]), data) for chosen in sets]
    return {
        f"{subset}: {what}": fmean(one[subset] for one in ones) for what, ones in found.items() for subset in SUBSETS
    }


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Less of the wrong labels than the ensemble, and no less of the right ones, for each seed; sizes in the remark."""
    largest = max(int(name.rsplit("-", 1)[1]) for name in measurements[0].numbers if name[-1].isdigit())

    def gaps(subset: str, against: str) -> list[float]:
        mine, other = f"{subset}: WARM-{largest}", f"{subset}: {against}"
        return [one.numbers[mine] - one.numbers[other] for one in measurements]

    ensemble = f"ENS-{largest}"
    remark = f"WARM-{largest} minus ENS-{largest}, mean and range over seeds: " + ", ".join(
        f"{subset} {spread(gaps(subset, ensemble))}" for subset in SUBSETS
    )
    remark += "; minus the mean member: " + ", ".join(
        f"{subset} {spread(gaps(subset, 'mean member'))}" for subset in SUBSETS
    )
    return graded(
        f"WARM-{largest} agrees with fewer wrong labels than ENS-{largest}, and is as accurate or better (to {NOISE}) "
        "on held-out and shifted pairs",
        [_row(one, largest) for one in measurements],
        {
            "fewer wrong labels learnt": [gap < -NOISE for gap in gaps(SUBSETS[0], ensemble)],
            "held out at least as well": [gap >= -NOISE - 1e-9 for gap in gaps(SUBSETS[2], ensemble)],
            "shifted at least as well": [gap >= -NOISE - 1e-9 for gap in gaps(SUBSETS[3], ensemble)],
            "held out at least as well as the mean member": [
                gap >= -NOISE - 1e-9 for gap in gaps(SUBSETS[2], "mean member")
            ],
        },
        remark,
    )


def spread(values: Sequence[float]) -> str:
    """Mean and range, as in "+0.02 (0.01 to 0.03)"."""
    return f"{fmean(values):+.3f} ({min(values):+.3f} to {max(values):+.3f})"


def _row(one: Measured, largest: int) -> str:
    return "; ".join(
        f"{subset} WARM {one.numbers[f'{subset}: WARM-{largest}']:.3f}, "
        f"ENS {one.numbers[f'{subset}: ENS-{largest}']:.3f}, "
        f"mean member {one.numbers[f'{subset}: mean member']:.3f}"
        for subset in SUBSETS
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Accuracy on the four subsets, one colour for each model."""
    sizes = sorted({int(name.rsplit("-", 1)[1]) for name in measurements[0].numbers if name[-1].isdigit()})
    labels = ["mean member", "best member", f"ENS-{sizes[0]}", f"WARM-{sizes[0]}", f"ENS-{sizes[-1]}"]
    labels = [*labels, f"WARM-{sizes[-1]}"]
    columns = {subset: {label: f"{subset}: {label}" for label in labels} for subset in SUBSETS}
    draw_numbers(axes, measurements, columns, "share of pairs ordered as their label says")


CLAIM = Claim(
    id="W1",
    sentence="Where labels are wrong, WARM memorises fewer of them than the ensemble of its members, and generalises "
    "as well.",
    source="WARM (arXiv 2401.12187), observation 3 and figure 4",
    setting=SETTING,
    quick=QUICK,
    run=run,
    judge=judge,
    draw=draw,
)
