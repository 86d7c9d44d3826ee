"""J-BOND sees only which reward is larger: r and exp(5 r) give one trajectory, bit for bit; REINFORCE's differ."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.figure import draw_curves
from benchmarks.fidelity.toys.bandit import Bandit, copy_of, jbond, learn, make_bandit, reinforce
from gemsmith.rl.algorithms.algorithm import Algorithm


def distances(bandit: Bandit, setting: Setting, seed: int, algorithm: Algorithm) -> list[tuple[float, float]]:
    """Largest difference of a weight between learning from r and from exp(5 r), after every tenth step."""
    policies = copy_of(bandit.reference), copy_of(bandit.reference)
    transforms = (lambda reward: reward), exponential
    runs = [
        learn(policy, bandit, algorithm, torch.Generator().manual_seed(seed), setting["steps"], setting["batch"],
              observed=transform)
        for policy, transform in zip(policies, transforms, strict=True)
    ]  # fmt: skip
    curve = []
    for step, _ in zip(*runs, strict=True):
        if step % 10 == 0:
            pairs = zip(policies[0].parameters(), policies[1].parameters(), strict=True)
            curve.append((float(step), max((a - b).abs().max().item() for a, b in pairs)))
    return curve


def exponential(reward: Tensor) -> Tensor:
    """Apply a monotone transform that changes every difference of rewards."""
    return (5 * reward).exp()


def run(setting: Setting, seed: int) -> Measured:
    """Learn twice by each algorithm from equal random numbers."""
    bandit = make_bandit(seed, tuple(setting["widths"]), setting["prompts"])
    bond, plain = (distances(bandit, setting, seed, algorithm) for algorithm in (jbond(), reinforce(kl=0.1)))
    numbers = {"J-BOND": max(gap for _, gap in bond), "REINFORCE": max(gap for _, gap in plain)}
    return Measured(numbers, {"J-BOND": bond, "REINFORCE": plain})


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Equal to the last bit for J-BOND, and not for REINFORCE."""
    return graded(
        "J-BOND: no weight differs in any step; REINFORCE: weights differ",
        [f"J-BOND {one.numbers['J-BOND']:.3g}, REINFORCE {one.numbers['REINFORCE']:.2g}" for one in measurements],
        {
            "J-BOND is unchanged": [one.numbers["J-BOND"] == 0.0 for one in measurements],
            "REINFORCE is changed": [one.numbers["REINFORCE"] > 0.0 for one in measurements],
        },
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Distance of the two trajectories over steps."""
    labels = {"J-BOND": "J-BOND", "REINFORCE": "REINFORCE, KL weight 0.1"}
    draw_curves(axes, measurements, labels, "step", "largest difference of a weight, r against exp(5r)")


CLAIM = Claim(
    id="B4",
    sentence="J-BOND is invariant to monotone transforms of the reward; REINFORCE is not.",
    source="BOND (arXiv 2407.14622), sections 1 and 3",
    setting={"widths": (16, 64, 128), "prompts": 512, "batch": 128, "steps": 300},
    quick={"steps": 60},
    run=run,
    judge=judge,
    draw=draw,
)
