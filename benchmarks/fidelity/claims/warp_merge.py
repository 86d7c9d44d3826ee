"""SLERP and LERP of runs whose steps are mostly noise, so that their task vectors stand far apart as the paper's do."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.curves import at
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys.bandit import reward_and_kl
from benchmarks.fidelity.toys.warp import angle_of_weights, inner_run, line, merged, warp_bandit

RATES = tuple(rate / 10 for rate in range(11))
MERGED = (2, 3, 5)


def run(setting: Setting, seed: int) -> Measured:
    """Five runs from one start; their means, merges by both means, and lines."""
    bandit = warp_bandit(setting, seed)
    start = bandit.reference
    finals = [inner_run(bandit, start, setting, setting["kl"], 10 * seed + number)[0] for number in range(max(MERGED))]
    each = [reward_and_kl(policy, bandit) for policy in finals]
    numbers = {"reward 1": sum(r for r, _ in each) / len(each), "KL 1": sum(k for _, k in each) / len(each)}
    lines = [line(bandit, start, policy, RATES) for policy in finals]
    mean = [(sum(k for k, _ in at_rate) / len(lines), sum(r for _, r in at_rate) / len(lines))
            for at_rate in zip(*lines, strict=True)]  # fmt: skip
    curves = {"M = 1": mean}
    for count in MERGED:
        by_slerp, angle = merged(start, finals[:count])
        by_lerp, _ = merged(start, finals[:count], "lerp")
        for how, policy in (("SLERP", by_slerp), ("LERP", by_lerp)):
            numbers[f"{how} reward {count}"], numbers[f"{how} KL {count}"] = reward_and_kl(policy, bandit)
        numbers.setdefault("angle", angle)
        curves[f"M = {count}"] = line(bandit, start, by_slerp, RATES)
    pairs = [angle_of_weights(a, b) for a, b in combinations(finals, 2)]
    return Measured(numbers | {"angle of weights": sum(pairs) / len(pairs)}, curves)


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Observations 2, 3 and 4, and the fronts by M."""

    def each(name: str) -> list[list[float]]:
        return [[one.numbers[f"SLERP {name} {m}"] for m in MERGED] for one in measurements]

    def fronts(one: Measured) -> list[float]:
        level = 0.5 * one.numbers["KL 1"]
        return [at(one.curves[f"M = {m}"], level) for m in (1, *MERGED)]

    def listed(one: Measured, name: str) -> str:
        return "/".join(f"{one.numbers[f'{name} {m}']:.2f}" for m in MERGED)

    return graded(
        "SLERP: reward above the runs' mean and rising with M, KL a little up; LERP: KL down, little gain in reward; "
        "task vectors near 90°, whole weights near 0°; the line's front rises with M",
        [
            f"runs {one.numbers['reward 1']:.2f} at KL {one.numbers['KL 1']:.2f}; M = 2/3/5: SLERP "
            f"{listed(one, 'SLERP reward')} at "
            f"{listed(one, 'SLERP KL')}, LERP "
            f"{listed(one, 'LERP reward')} at "
            f"{listed(one, 'LERP KL')}; angles {one.numbers['angle']:.0f}° and "
            f"{one.numbers['angle of weights']:.0f}°; front at half the KL {'/'.join(f'{r:.3f}' for r in fronts(one))}"
            for one in measurements
        ],
        {
            "SLERP's reward rises with M above the runs' mean": [
                one.numbers["reward 1"] < a < b < c for one, (a, b, c) in zip(measurements, each("reward"), strict=True)
            ],
            "SLERP's KL is above the runs' mean": [
                all(one.numbers["KL 1"] < value for value in kls)
                for one, kls in zip(measurements, each("KL"), strict=True)
            ],
            "LERP's KL is below the runs' mean and falls with M": [
                one.numbers["KL 1"] > one.numbers["LERP KL 2"] > one.numbers["LERP KL 3"] > one.numbers["LERP KL 5"]
                for one in measurements
            ],
            "LERP's reward is within 15% of the runs' mean": [
                all(abs(one.numbers[f"LERP reward {m}"] / one.numbers["reward 1"] - 1) < 0.15 for m in MERGED)
                for one in measurements
            ],
            "task vectors are 55° to 100° apart": [55 < one.numbers["angle"] < 100 for one in measurements],
            "whole weights are under half as far apart": [
                one.numbers["angle of weights"] < 0.5 * one.numbers["angle"] for one in measurements
            ],
            "the front at half of the runs' KL rises with M": [
                all(a < b for a, b in zip(fronts(one), fronts(one)[1:], strict=False)) for one in measurements
            ],
        },
        "Batches of 4 and noise of 3 on rewards of deviation 1: independent noise cancels in part, and SLERP gives the "
        "shared part its length back. A likely reason for what differs: noise costs KL here, so that merging by SLERP "
        "lowers KL, where the paper's rises a little; and what each run alone has found earns reward too, which LERP "
        "cuts. With batches of 128 and no noise, runs are much more alike (P2).",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Lines of the merges, and LERP's ends as crosses."""
    labels = {f"M = {m}": f"line to SLERP of M = {m}" if m > 1 else "line to one run (mean of 5)" for m in (1, *MERGED)}
    draw_curves(axes, measurements, labels, "KL to the initial policy (nats)", "mean reward (standard deviations)", ".")
    for number, one in enumerate(measurements):
        points = [(one.numbers[f"LERP KL {m}"], one.numbers[f"LERP reward {m}"]) for m in MERGED]
        label = None if number else "LERP, M = 5/3/2"
        axes.plot(*zip(*points, strict=True), "x", color="#444444", markersize=5, label=label)
    axes.legend(frameon=False, fontsize=8)


CLAIM = Claim(
    id="P3",
    sentence="SLERP of M runs raises reward, LERP lowers KL; task vectors are near 90° apart; the front rises with M.",
    source="WARP (arXiv 2406.16768), section 3.2, observations 2 to 4, figure 4",
    setting={
        "widths": (24, 96, 96, 64), "prompts": 4096, "held_out": 2048, "batch": 4, "noise": 3.0, "steps": 800,
        "learning_rate": 2e-3, "every": 800, "kl": 0.5,
    },
    quick={"steps": 300, "every": 300},
    run=run,
    judge=judge,
    draw=draw,
)  # fmt: skip
