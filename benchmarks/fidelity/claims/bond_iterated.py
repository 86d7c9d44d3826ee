"""Iterated BOND goes on rising where one-shot BOND stays at its Best-of-N, along one curve of reward over KL."""

from collections.abc import Sequence
from typing import Any

from benchmarks.fidelity.claim import Claim, Curve, Measured, Setting, Verdict, graded
from benchmarks.fidelity.curves import at
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys.best_of_n_law import kl
from benchmarks.fidelity.toys.sequences import distil, make_sequences

ONE_SHOT = (4, 8, 16)
ITERATED = (2, 4)


def run(setting: Setting, seed: int) -> Measured:
    """Distil one-shot and iterated from one reference; keep reward over steps and over KL."""
    problem = make_sequences(seed, setting["prompts"], setting["length"], setting["vocabulary"])
    reference_PS = problem.logprobs(problem.reference_PLV)
    curves: dict[str, Curve] = {}
    for name, n, period in [
        *((f"one-shot {n}", n, None) for n in ONE_SHOT),
        *((f"iterated {n}", n, setting["period"]) for n in ITERATED),
    ]:
        seen = [
            (
                float(step),
                (logprob_PS.exp() * problem.reward_PS).sum(-1).mean().item(),
                kl(logprob_PS, reference_PS).mean().item(),
            )
            for step, logprob_PS in distil(problem, n, 0.5, setting["steps"], setting["learning_rate"], period)
            if step % (setting["period"] // 4) == 0
        ]
        curves[name] = [(step, reward) for step, reward, _ in seen]
        curves[f"{name} by KL"] = [(divergence, reward) for _, reward, divergence in seen]
    numbers = {name: curve[-1][1] for name, curve in curves.items() if not name.endswith("KL")}
    return Measured(numbers | {"best": problem.reward_PS.max(-1).values.mean().item()}, curves)


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Plateaus, their order, who passes them, and the distance of the curves at equal KL."""

    def late(one: Measured, name: str, share: float = 0.5) -> float:
        """Share of the whole gain that was made in the last part of the steps."""
        curve = one.curves[name]
        before = at(curve, curve[-1][0] * (1 - share))
        return (curve[-1][1] - before) / (curve[-1][1] - curve[0][1])

    def gap(one: Measured) -> float:
        """Largest distance of reward between n = 2 and n = 4 at equal KL, over the gain of n = 2."""
        slow, fast = one.curves["iterated 2 by KL"], one.curves["iterated 4 by KL"]
        between = [(x, y) for x, y in slow if 0.5 < x < fast[-1][0]]
        return max(abs(y - at(fast, x)) for x, y in between) / (slow[-1][1] - slow[0][1])

    names = [f"one-shot {n}" for n in ONE_SHOT] + [f"iterated {n}" for n in ITERATED]
    return graded(
        "one-shot stops, lower for smaller N; iterated rises on beyond it, n = 4 faster; one curve of reward over KL",
        [
            f"one-shot {'/'.join(f'{one.numbers[name]:.2f}' for name in names[:3])}, "
            f"iterated {'/'.join(f'{one.numbers[name]:.2f}' for name in names[3:])} "
            f"of at most {one.numbers['best']:.2f}; "
            f"in the last half {late(one, 'one-shot 16'):.0%}, {late(one, 'iterated 2'):.0%}, "
            f"{late(one, 'iterated 4'):.0%} of the gain; curves {gap(one):.0%} apart"
            for one in measurements
        ],
        {
            "one-shot makes under 2% of its gain in the last half": [
                all(late(one, f"one-shot {n}") < 0.02 for n in ONE_SHOT) for one in measurements
            ],
            "a larger N ends higher": [
                one.numbers["one-shot 4"] < one.numbers["one-shot 8"] < one.numbers["one-shot 16"]
                for one in measurements
            ],
            "iterated passes every one-shot": [
                min(one.numbers[f"iterated {n}"] for n in ITERATED) > one.numbers["one-shot 16"] for one in measurements
            ],
            "n = 4 is above n = 2 after every refresh": [
                all(
                    y > at(one.curves["iterated 2"], x)
                    for x, y in one.curves["iterated 4"]
                    if x > one.curves["iterated 4"][4][0] / 2
                )
                for one in measurements
            ],
            "iterated n = 2 still makes over 5% of its gain in the last half": [
                late(one, "iterated 2") > 0.05 for one in measurements
            ],
            "iterated n = 4 still makes over 5% of its gain in the last half": [
                late(one, "iterated 4") > 0.05 for one in measurements
            ],
            "at equal KL n = 2 and n = 4 are within 5%": [gap(one) < 0.05 for one in measurements],
        },
        "Sequences are few here, so that iterated BOND nears the best one and must slow down; the paper's never end.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Reward over steps."""
    labels = {f"one-shot {n}": f"one-shot, N = {n}" for n in ONE_SHOT}
    labels |= {f"iterated {n}": f"iterated, n = {n}" for n in ITERATED}
    draw_curves(axes, measurements, labels, "step", "mean reward (standard deviations)")


CLAIM = Claim(
    id="B2",
    sentence="One-shot BOND saturates, sooner for small N; iterated BOND goes on rising, faster for n = 4 than n = 2.",
    source="BOND (arXiv 2407.14622), section 5 and figure 4",
    setting={"prompts": 8, "length": 3, "vocabulary": 6, "period": 200, "steps": 1600, "learning_rate": 0.05},
    quick={"prompts": 2, "vocabulary": 5, "period": 60, "steps": 480, "learning_rate": 0.1},
    run=run,
    judge=judge,
    draw=draw,
)
