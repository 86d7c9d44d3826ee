"""Averaged weights keep a feature in proportion to p ** layers, averaged predictions in proportion to p.

A simulation of the paper's theory: a member learns a feature with probability p, in all of its layers, or not at all.
"""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.figure import COLOURS
from gemsmith.reward_models.ensemble import combine
from gemsmith.weights.merge import average

PROBABILITIES = (0.1, 0.3, 0.5, 0.7, 0.9)


def run(setting: Setting, seed: int) -> Measured:
    """Weights of features under averaged weights (by the project's merge of checkpoints) and averaged predictions."""
    generator = torch.Generator().manual_seed(seed)
    numbers = {}
    for p in PROBABILITIES:
        for members in setting["members"]:
            for layers in setting["layers"]:
                learnt_MJ = (torch.rand(members, setting["features"], generator=generator) < p).float()
                merged, ensembled = weights_of_features(learnt_MJ, layers)
                numbers[f"WA {p} {members} {layers}"] = merged
                numbers[f"ENS {p} {members} {layers}"] = ensembled
    return Measured(numbers)


def weights_of_features(learnt_MJ: Tensor, layers: int) -> tuple[float, float]:
    """Mean weight of a feature in the reward of the averaged model and of the ensemble; learnt_MJ holds 0 and 1."""
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(member) for member in range(len(learnt_MJ))]
        for folder, learnt_J in zip(folders, learnt_MJ, strict=True):
            folder.mkdir()
            save_file(
                {f"layers.{layer}.weight": learnt_J.clone() for layer in range(layers)}, folder / "model.safetensors"
            )
        average(folders, Path(name) / "average")
        merged = load_file(Path(name) / "average" / "model.safetensors")
    single_MJ = [rewards([learnt_J] * layers).tolist() for learnt_J in learnt_MJ]
    ensembled = combine(single_MJ, [0.0] * len(learnt_MJ), "mean")
    return rewards(list(merged.values())).mean().item(), sum(ensembled) / len(ensembled)


def rewards(layers_J: Sequence[Tensor]) -> Tensor:
    """Reward of an input that has one feature only, for each feature: the product over the layers, [J]."""
    return torch.stack(list(layers_J)).prod(dim=0)


def theory(p: float, members: int, layers: int) -> float:
    """E[(K / M) ** L] where K of M members learnt a feature: p² + p (1 - p) / M for two layers, p ** L for M large."""
    chances = (math.comb(members, k) * p**k * (1 - p) ** (members - k) for k in range(members + 1))
    return sum(chance * (k / members) ** layers for k, chance in enumerate(chances))


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Against p for the ensemble, and the theory for a finite number of members for the average."""
    trials = [(float(p), int(m), int(layers)) for kind, p, m, layers in map(str.split, measurements[0].numbers)]
    most, deepest = max(m for _, m, _ in trials), max(layers for _, _, layers in trials)
    sizes = sorted({m for _, m, _ in trials})

    def near(one: Measured, kind: str) -> bool:
        return all(
            abs(one.numbers[f"{kind} {p} {m} {layers}"] - (p if kind == "ENS" else theory(p, m, layers))) < 0.02
            for p, m, layers in trials
        )

    return graded(
        "ensemble: p; two layers averaged: p² + p (1 - p) / M; more layers: towards p^L. At p = 0.3: 0.3, "
        + ", ".join(f"{theory(0.3, m, 2):.3f} for M = {m}" for m in sizes)
        + f", {theory(0.3, most, deepest):.3f} for {deepest} layers",
        [
            f"at p = 0.3: {one.numbers[f'ENS 0.3 {most} 2']:.3f}, "
            + ", ".join(f"{one.numbers[f'WA 0.3 {m} 2']:.3f}" for m in sizes)
            + f", {one.numbers[f'WA 0.3 {most} {deepest}']:.3f}"
            for one in measurements
        ],
        {
            "ensemble within 0.02 of p": [near(one, "ENS") for one in measurements],
            "average within 0.02 of the theory": [near(one, "WA") for one in measurements],
            "more members and more layers keep rare features less": [
                one.numbers[f"WA 0.3 {sizes[0]} 2"]
                > one.numbers[f"WA 0.3 {most} 2"]
                > one.numbers[f"WA 0.3 {most} {deepest}"]
                for one in measurements
            ],
        },
        "This simulates the theory's own model of learning; nothing is trained.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Weight over probability; theory dashed."""
    trials = [name.split() for name in measurements[0].numbers]
    fewest, most = min(int(m) for _, _, m, _ in trials), max(int(m) for _, _, m, _ in trials)
    deepest = max(int(layers) for _, _, _, layers in trials)
    shown = [
        ("ENS", most, 2, f"ensemble of {most}"),
        ("WA", fewest, 2, f"average of {fewest}, 2 layers"),
        ("WA", most, 2, f"average of {most}, 2 layers"),
        ("WA", most, deepest, f"average of {most}, {deepest} layers"),
    ]
    line = [k / 50 for k in range(51)]
    for colour, (kind, members, layers, label) in zip(COLOURS, shown, strict=False):
        expected = [p if kind == "ENS" else theory(p, members, layers) for p in line]
        axes.plot(line, expected, color=colour, linewidth=0.8, linestyle="--")
        for number, one in enumerate(measurements):
            values = [one.numbers[f"{kind} {p} {members} {layers}"] for p in PROBABILITIES]
            axes.plot(PROBABILITIES, values, "o", color=colour, markersize=4, label=None if number else label)
    axes.plot([], [], color="grey", linewidth=0.8, linestyle="--", label="theory")
    axes.set_xlabel("p, probability that a member learns the feature")
    axes.set_ylabel("weight of the feature in the reward (learnt by all: 1)")
    axes.legend(frameon=False, fontsize=8)


CLAIM = Claim(
    id="W3",
    sentence="Averaging weights keeps a feature by p² (p^L for L layers), averaging predictions by p: rare ones fade.",
    source="WARM (arXiv 2401.12187), section 4.2 and its appendix on layers",
    setting={"features": 4000, "members": (2, 5, 10), "layers": (2, 4)},
    quick={"members": (2, 10)},
    run=run,
    judge=judge,
    draw=draw,
)
