"""Jeffreys' divergence at beta 0.5 lowers both divergences to Best-of-N, where either alone neglects the other."""

from collections.abc import Sequence
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.figure import draw_numbers
from benchmarks.fidelity.toys.best_of_n_law import best_of_n_logprob, kl, log_quantiles
from benchmarks.fidelity.toys.sequences import distil, make_sequences

BETAS = (0.0, 0.5, 1.0)
KINDS = ("forward KL", "backward KL", "log-quantile")


def run(setting: Setting, seed: int) -> Measured:
    """Distil Best-of-N with each beta, and measure all three at the end and along the way."""
    problem = make_sequences(seed, setting["prompts"], setting["length"], setting["vocabulary"])
    reference_PS = problem.logprobs(problem.reference_PLV)
    target_PS = best_of_n_logprob(reference_PS, problem.reward_PS, setting["n"])
    _, log_at_most_PS = log_quantiles(reference_PS, problem.reward_PS)
    numbers, curves = {}, {}
    for beta in BETAS:
        seen = []
        for step, logprob_PS in distil(problem, setting["n"], beta, setting["steps"], setting["learning_rate"]):
            if step % (setting["steps"] // 20) == 0:
                values_P = (
                    kl(target_PS, logprob_PS),
                    kl(logprob_PS, target_PS),
                    (logprob_PS.exp() * log_at_most_PS).sum(-1),
                )
                seen.append((float(step), [value.mean().item() for value in values_P]))
        for place, kind in enumerate(KINDS):
            curves[f"{kind} {beta}"] = [(step, values[place]) for step, values in seen]
            numbers[f"{kind} {beta}"] = seen[-1][1][place]
    return Measured(numbers, curves)


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Judge the orderings of figure 2: each divergence is lowest with its own weight, and 0.5 is close to both."""

    def values(kind: str) -> list[tuple[float, ...]]:
        return [tuple(one.numbers[f"{kind} {beta}"] for beta in BETAS) for one in measurements]

    forward, backward, quantile = (values(kind) for kind in KINDS)
    return graded(
        "forward KL: beta 0 < 0.5 < 1; backward KL: 1 < 0.5 < 0; log-quantile: 0.5 and 1 near one another, 0 lags",
        [
            "; ".join(f"{kind} " + "/".join(f"{one.numbers[f'{kind} {beta}']:.2f}" for beta in BETAS) for kind in KINDS)
            for one in measurements
        ],
        {
            "forward KL is in order": [zero < half < one for zero, half, one in forward],
            "backward KL is in order": [one < half < zero for zero, half, one in backward],
            "log-quantile at beta 0 lags": [zero < half <= one for zero, half, one in quantile],
            "log-quantile at 0.5 is nearer to that at 1 than to that at 0": [
                one - half < half - zero for zero, half, one in quantile
            ],
            "at 0.5 each divergence is nearer to its lowest than to its highest": [
                f[1] - f[0] < f[2] - f[1] and b[1] - b[2] < b[0] - b[1] for f, b in zip(forward, backward, strict=True)
            ],
        },
        "Numbers are for beta 0/0.5/1.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Draw the three measures at the end, by beta."""
    groups = {
        "KL(Best-of-N ‖ policy)": {f"β = {beta:g}": f"forward KL {beta}" for beta in BETAS},
        "KL(policy ‖ Best-of-N)": {f"β = {beta:g}": f"backward KL {beta}" for beta in BETAS},
        "mean log-quantile": {f"β = {beta:g}": f"log-quantile {beta}" for beta in BETAS},
    }
    draw_numbers(axes, measurements, groups, "nats, at the last step")


CLAIM = Claim(
    id="B1",
    sentence="Jeffreys' divergence (beta 0.5) brings both KLs to Best-of-N down; forward KL alone lags in quantile.",
    source="BOND (arXiv 2407.14622), section 4.1 and figure 2",
    setting={"n": 8, "prompts": 16, "length": 3, "vocabulary": 8, "steps": 400, "learning_rate": 0.05},
    quick={"prompts": 4, "vocabulary": 6, "steps": 120, "learning_rate": 0.1},
    run=run,
    judge=judge,
    draw=draw,
)
