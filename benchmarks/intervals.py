"""Simulate the coverage of evaluation's intervals, and how often a difference between two policies is found.

    python -m benchmarks.intervals [--quick] [--json PATH]

Rates of prompts are beta-distributed (intraclass correlation 0 and 0.5), completions are binomial. It prints the share
of 95% intervals that cover the true mean, of ours and of the percentile bootstrap; how often two equal policies are
called different; and how often a gain of 0.5 logits is found, paired and by separate intervals.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

from benchmarks.results import Row, write_rows
from gemsmith.contracts.intervals import paired_difference, rate_interval

PROMPTS, SAMPLES, MEANS, CORRELATIONS = (8, 16, 32, 64, 200), (1, 8), (0.01, 0.05, 0.5, 0.95), (0.0, 0.5)
SPREAD = 2.0  # standard deviation of the prompts' logits in the simulation of power
GAIN = 0.5  # logits


def rates(rng: np.random.Generator, prompts: int, mean: float, correlation: float) -> np.ndarray:
    """Return the pass rate of each prompt, [P], beta-distributed with this mean and intraclass correlation."""
    if not correlation:
        return np.full(prompts, mean)
    total = 1 / correlation - 1
    return rng.beta(mean * total, (1 - mean) * total, size=prompts)


def answers(rng: np.random.Generator, rate_P: np.ndarray, samples: int) -> list[float]:
    """Return 1 or 0 for each completion, prompt-major, [P * N]."""
    return (rng.random((len(rate_P), samples)) < rate_P[:, None]).ravel().astype(float).tolist()


def bootstrap(rng: np.random.Generator, values: list[float], samples: int) -> tuple[float, float]:
    """Return the percentile bootstrap's bounds over prompts, which evaluations had before."""
    mean_P = np.array(values).reshape(-1, samples).mean(1)
    times_RP = rng.multinomial(len(mean_P), np.full(len(mean_P), 1 / len(mean_P)), size=500)
    low, high = np.quantile(times_RP @ mean_P / len(mean_P), [0.025, 0.975])
    return float(low), float(high)


def cell(seed: int, prompts: int, samples: int, mean: float, correlation: float, repeats: int) -> dict[str, float]:
    """Return coverage, widths and the rate of false differences in one cell."""
    rng, number = np.random.default_rng(seed), [p for p in range(prompts) for _ in range(samples)]
    found = np.zeros((repeats, 5))
    for repeat in range(repeats):
        rate_P = rates(rng, prompts, mean, correlation)
        first, second = answers(rng, rate_P, samples), answers(rng, rate_P, samples)
        ours, theirs = rate_interval(first, number), bootstrap(rng, first, samples)
        difference = paired_difference(first, number, second, number)
        assert difference is not None
        found[repeat] = (
            *(ours.low <= mean <= ours.high, theirs[0] <= mean <= theirs[1]),
            *(ours.high - ours.low, theirs[1] - theirs[0], difference.apart),
        )
    names = ("coverage", "bootstrap", "width", "bootstrap width", "false differences")
    return dict(zip(names, found.mean(0).tolist(), strict=True))


def power(seed: int, prompts: int, samples: int, repeats: int) -> tuple[float, float]:
    """Return how often a gain of 0.5 logits is found: by the paired interval, and by disjoint separate ones."""
    rng, number = np.random.default_rng(seed), [p for p in range(prompts) for _ in range(samples)]
    paired = separate = 0
    for _ in range(repeats):
        logit_P = rng.normal(0, SPREAD, size=prompts)
        better, worse = (answers(rng, 1 / (1 + np.exp(-logit_P - gain)), samples) for gain in (GAIN, 0.0))
        difference = paired_difference(better, number, worse, number)
        assert difference is not None
        paired += difference.low > 0
        separate += rate_interval(better, number).low > rate_interval(worse, number).high
    return paired / repeats, separate / repeats


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 replications in place of 2,000")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    options = parser.parse_args()
    repeats = 100 if options.quick else 2_000
    rows: list[Row] = []
    print(f"{repeats} replications; coverage of 95% intervals, ours and the percentile bootstrap's")
    print("prompts samples  mean  icc   ours  bootstrap  width ratio  false differences")
    for prompts, samples, mean, icc in itertools.product(PROMPTS, SAMPLES, MEANS, CORRELATIONS):
        found = cell(0, prompts, samples, mean, icc, repeats)
        ratio = found["width"] / found["bootstrap width"] if found["bootstrap width"] else float("inf")
        name = f"{prompts} x {samples}, mean {mean}, correlation {icc}"
        print(
            f"{prompts:7} {samples:7}  {mean:4}  {icc:3}  {found['coverage']:.3f}  {found['bootstrap']:9.3f}"
            f"  {ratio:11.2f}  {found['false differences']:17.3f}"
        )
        rows.append(Row(f"coverage, {name}", found["coverage"], "share", "percentile bootstrap", found["bootstrap"]))
        rows.append(Row(f"false differences, {name}", found["false differences"], "share", "at most", 0.06))
    print(f"power at 8 samples and a gain of {GAIN} logits: paired, and separate intervals that must be disjoint")
    for prompts in (64, 128, 256):
        paired, separate = power(0, prompts, 8, repeats)
        print(f"{prompts:7} prompts  {paired:.3f}  {separate:.3f}")
        rows.append(Row(f"power at {prompts} prompts", paired, "share", "separate intervals", separate))
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
