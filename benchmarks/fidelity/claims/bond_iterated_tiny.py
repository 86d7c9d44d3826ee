"""Iterated BOND against the Best-of-N of the start that it should come to, on tiny Gemma 3 policies."""

import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys import trajectory
from benchmarks.fidelity.toys.best_of_n import best_of_n, log_quantile, win_rate
from benchmarks.fidelity.toys.tiny_policies import policy_config
from benchmarks.fidelity.toys.trajectory import Ruler, start_of, train
from gemsmith.policy.loading.load import load_policy
from gemsmith.rl.algorithms.best_of_n import kl_bound

PERIODS = 4
TARGETS = tuple(2**period for period in range(1, PERIODS + 1))


def run(setting: Setting, seed: int) -> Measured:
    """Distil Best-of-2 of the anchor, period by period, and hold each end against Best-of-2, 4, 8, 16 of the start."""
    start, every = start_of(setting, seed), setting["steps"] // PERIODS
    ruler = Ruler(start, setting, seed)
    drawn = _by_prompt(ruler, str(start), setting["best_of"])
    numbers: dict[str, float] = {}
    for n in TARGETS:
        found = [best_of_n(each, n) for each in drawn]
        numbers |= {f"Best-of-{n} reward": fmean(r for r, _ in found)}
        numbers |= {f"Best-of-{n} log-quantile": fmean(q for _, q in found), f"Best-of-{n} KL": kl_bound(n)}
    options = {
        "form": "bond", "n": 2, "beta": setting["beta"], "quantile_samples": setting["quantile_samples"],
        "anchor": "periodic", "anchor_every": every,
    }  # fmt: skip
    ends = [every * period for period in range(1, PERIODS + 1)]
    curves = {f"win rate against Best-of-{n}": [(0.0, 1 / (n + 1))] for n in TARGETS}
    with tempfile.TemporaryDirectory() as folder:
        kept = train(start, "bond", options, setting, seed, Path(folder), ends, ruler)
        for period, step in enumerate(ends, 1):
            point = ruler.point(load_policy(policy_config(str(kept[step]))), step)
            samples = _by_prompt(ruler, str(kept[step]), trajectory.SAMPLES)
            pairs = [(value, by) for own, by in zip(samples, drawn, strict=True) for value in own]
            numbers |= {f"period {period} reward": point.reward, f"period {period} KL": point.kl}
            numbers[f"period {period} log-quantile"] = fmean(log_quantile(value, by) for value, by in pairs)
            for n in TARGETS:
                won = fmean(win_rate(value, by, n) for value, by in pairs)
                curves[f"win rate against Best-of-{n}"].append((float(period), round(won, 4)))
    return Measured({name: round(value, 4) for name, value in numbers.items()}, curves)


def _by_prompt(ruler: Ruler, folder: str, samples: int) -> list[list[float]]:
    """Rewards of so many completions of each held-out prompt, in standard deviations of the initial policy."""
    rewards = ruler.standard(ruler.gold(ruler.drawn(load_policy(policy_config(folder)), samples)))
    return [rewards[i : i + samples] for i in range(0, len(rewards), samples)]


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Each period's end against the Best-of-N that it should be, in win rate and in log-quantile."""

    def won(one: Measured, period: int, n: int | None = None) -> float:
        """Win rate of a period's end against Best-of-n, or against its own Best-of-N."""
        return one.curves[f"win rate against Best-of-{n or 2**period}"][period][1]

    def nearer(one: Measured, period: int) -> bool:
        """Return whether the log-quantile is past the middle between half as many, and Best-of-2^i itself."""
        half, whole = (
            1.0 if n == 1 else -one.numbers[f"Best-of-{n} log-quantile"] for n in (2**period // 2, 2**period)
        )
        return -one.numbers[f"period {period} log-quantile"] < (half + whole) / 2

    def over(one: Measured, what: str) -> str:
        return ", ".join(
            f"{one.numbers[f'period {period} {what}']:.2f} ({one.numbers[f'Best-of-{2**period} {what}']:.2f})"
            for period in periods
        )

    periods = range(1, len(measurements[0].curves) + 1)
    return graded(
        "at the end of period i the policy's sample beats Best-of-2^i of the start half of the time (0.45 to 0.55), "
        "and its log-quantile comes near that of Best-of-2^i, by theory -1/N",
        [
            f"win rate {', '.join(f'{won(one, period):.2f}' for period in periods)}; of the policy (and Best-of-N): "
            f"log-quantile {over(one, 'log-quantile')}; reward {over(one, 'reward')}; KL {over(one, 'KL')}; "
            f"after period 3 against Best-of-2 {won(one, 3, 2):.2f} ({8 / 10:.2f}), against Best-of-16 "
            f"{won(one, 3, 16):.2f} ({8 / 24:.2f})"
            for one in measurements
        ],
        {
            **{
                f"period {period} is level with Best-of-{2**period}": [
                    0.45 <= won(one, period) <= 0.55 for one in measurements
                ]
                for period in periods
            },
            "log-quantile is nearer to that of Best-of-2^i than to that of half as many, in each period": [
                all(nearer(one, period) for period in periods) for one in measurements
            ],
            "log-quantile rises with each period": [
                all(a < b for a, b in pairwise(one.numbers[f"period {period} log-quantile"] for period in periods))
                for one in measurements
            ],
        },
        "In brackets is what Best-of-2^i has: a KL of log N - (N - 1) / N, and N / (N + M) wins against Best-of-M. "
        "In the pilot the policy's law was wider than that of Best-of-N, with a low tail that the log-quantile weighs: "
        "at a win rate of about one half it won less against Best-of-2, and no less against Best-of-16.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Win rate against each Best-of-N over the periods; 1/2 is level."""
    labels = {f"win rate against Best-of-{n}": f"against Best-of-{n}" for n in TARGETS}
    axes.axhline(0.5, color="#888888", linewidth=0.8, linestyle="--")
    axes.set_xticks(range(PERIODS + 1))
    draw_curves(axes, measurements, labels, "periods, each of which distils Best-of-2 of the last", "win rate", "o")


CLAIM = Claim(
    id="G4",
    sentence="Tiny Gemma 3: iterated BOND with n = 2 becomes the start's Best-of-2, 4, 8 and 16 in turn.",
    source="BOND (arXiv 2407.14622), section 5 and equation 16",
    # The rate and steps are from a pilot on seed 99: 40 steps a period ended a little short of Best-of-2 of the anchor,
    # and twice the rate went further away for the same reward.
    setting={
        "sft_steps": 90, "prompts": 32, "learning_rate": 5e-4, "steps": 240, "beta": 0.5, "quantile_samples": 16,
        "asked": 128, "best_of": 128,
    },
    quick={"sft_steps": 12, "prompts": 4, "steps": 8, "asked": 8, "best_of": 32, "quantile_samples": 4},
    run=run,
    judge=judge,
    draw=draw,
    names=trajectory.NAMES,
)  # fmt: skip
