"""Best of N by reward models that learnt from partly wrong labels, counted by the gold reward."""

import random
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from benchmarks.fidelity.claim import Claim, Curve, Measured, Setting, Verdict, graded
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys.corrupted import QUICK, SETTING, members, policy_of
from benchmarks.fidelity.toys.gold import Gold
from benchmarks.fidelity.toys.language import prompts
from benchmarks.fidelity.toys.reward_scores import best_of, best_of_n_kl, candidates_scorer, mean_of
from benchmarks.fidelity.toys.tiny_policies import policy_config, sampled, tokens_of
from gemsmith.policy.loading.load import load_policy


def run(setting: Setting, seed: int) -> Measured:
    """Gold of the best of N in standard deviations of the candidates' gold, for N = 1, 2, 4 ... by each selector."""
    models, size = members(setting, seed), setting["candidates"]
    policy = load_policy(policy_config(str(policy_of(setting, seed))))
    asked = [p for p in prompts(setting["prompts"], random.Random(f"best of n {seed}")) for _ in range(size)]
    texts = sampled(policy, asked[::size], size, seed + 1)
    gold_PN = torch.tensor(Gold(seed)(asked, texts)).view(-1, size)
    gold_PN = (gold_PN - gold_PN.mean()) / gold_PN.std()
    sequences = [tokens_of(policy, *pair) for pair in zip(asked, texts, strict=True)]
    scorer = candidates_scorer(setting, seed, sequences)
    each = [scorer.of(f"member {m}", model) for m, model in enumerate(models)]
    every, pairs = tuple(range(len(models))), [(m, m + 1) for m in range(0, len(models), 2)]
    averages = {some: scorer.of_average(f"average {some}", [models[m] for m in some]) for some in (*pairs, every)}
    selectors: Mapping[str, list[Tensor]] = {
        "gold": [gold_PN],
        "WARM": [_table(averages[every], size)],
        "ENS": [_table(mean_of(each), size)],
        "WARM-2": [_table(averages[pair], size) for pair in pairs],
        "ENS-2": [_table(mean_of([each[m] for m in pair]), size) for pair in pairs],
        "mean member": [_table(rewards, size) for rewards in each],
    }
    numbers: dict[str, float] = {}
    curves: dict[str, Curve] = {}
    sizes = [2**i for i in range(size.bit_length()) if 2**i <= size]
    for name, tables in selectors.items():
        found = [[best_of(n, reward_PN, gold_PN) for n in sizes] for reward_PN in tables]
        means = [fmean(column) for column in zip(*found, strict=True)]
        curves[name] = list(zip(map(best_of_n_kl, sizes), means, strict=True))
        numbers |= {f"{name}, N = {n}": mean for n, mean in zip(sizes, means, strict=True)}
        if name == "mean member":
            numbers["best member"] = max(line[-1] for line in found)
    numbers["candidates"] = float(size)
    return Measured(numbers, curves)


def _table(rewards: Sequence[float], size: int) -> Tensor:
    return torch.tensor(rewards).view(-1, size)


def judge(measurements: Sequence[Measured]) -> Verdict:
    """At the largest N the average selects better than the ensemble, and that better than the members."""
    largest = int(measurements[0].numbers["candidates"])

    def at(name: str, n: int = largest) -> list[float]:
        return [one.numbers[f"{name}, N = {n}"] for one in measurements]

    def over(first: str, second: str, n: int = largest) -> list[float]:
        return [mine - other for mine, other in zip(at(first, n), at(second, n), strict=True)]

    middle = max(2, largest // 8)
    remark = f"Mean and range over seeds at N = {largest}: " + ", ".join(
        f"{first} minus {second} {fmean(gaps):+.2f} ({min(gaps):+.2f} to {max(gaps):+.2f})"
        for first, second in (("WARM", "ENS"), ("WARM", "mean member"), ("ENS", "mean member"), ("WARM-2", "ENS-2"))
        for gaps in (over(first, second),)
    )
    remark += f"; at N = {middle}: WARM minus ENS {fmean(over('WARM', 'ENS', middle)):+.2f}"
    best = [one.numbers["best member"] for one in measurements]
    remark += f". The best member of each seed, by gold: {', '.join(f'{value:.2f}' for value in best)}"
    return graded(
        f"gold of the best of {largest}: WARM above ENS above the mean member",
        [
            ", ".join(f"{name} {one.numbers[f'{name}, N = {largest}']:.2f}" for name in one.curves)
            for one in measurements
        ],
        {
            "WARM above ENS": [gap > 0 for gap in over("WARM", "ENS")],
            "WARM above the mean member": [gap > 0 for gap in over("WARM", "mean member")],
            "ENS above the mean member": [gap > 0 for gap in over("ENS", "mean member")],
        },
        remark,
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Gold over the KL of best of N, less that of the mean member: seeds differ more than selectors do."""
    labels = {"WARM": "WARM of all members", "ENS": "ENS of all members"}
    labels |= {"WARM-2": "WARM of two", "ENS-2": "ENS of two"}
    less = []
    for one in measurements:
        base = [gold for _, gold in one.curves["mean member"]]
        less.append(
            Measured(
                {},
                {
                    name: [(kl, gold - mean) for (kl, gold), mean in zip(one.curves[name], base, strict=True)]
                    for name in labels
                },
            )
        )
    y = "gold less that by single members, in std. deviations"
    draw_curves(axes, less, labels, "KL of best of N, log N - (N - 1) / N, in nats", y)
    axes.axhline(0, color="#888888", linewidth=0.8)


CLAIM = Claim(
    id="W4",
    sentence="Best of N by WARM finds better completions than by the ensemble or by single ones, where labels are "
    "partly wrong.",
    source="WARM (arXiv 2401.12187), figures 6 and 7",
    setting={**SETTING, "prompts": 32, "candidates": 256},
    quick={**QUICK, "prompts": 8, "candidates": 64},
    run=run,
    judge=judge,
    draw=draw,
)
