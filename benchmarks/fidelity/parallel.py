"""Trials in processes of their own, a few at a time; results are those of one after another."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from benchmarks.fidelity import kept
from benchmarks.fidelity.code import ROOT
from benchmarks.fidelity.suite import Plan


def measure_ahead(
    pool: ThreadPoolExecutor, plans: Sequence[Plan], folder: Path, threads: int, say: Callable[[str], None]
) -> dict[str, list[Future[None]]]:
    """Have the trials that are not kept measured, in the order of the plans.

    Args:
        pool: pool of threads that wait for the processes; its size is the number of trials at once.
        plans: plans of the claims.
        folder: folder of the measurements.
        threads: torch's threads in each process.
        say: function that prints progress.

    Returns:
        Futures by claim. A trial whose process fails is reported and not measured.
    """

    def measure(plan: Plan, seed: int) -> None:
        say(f"{plan.claim.id} seed {seed}: begun")
        words = [plan.claim.id, str(seed), "--kept", str(folder), "--threads", str(threads)]
        words += ["--quick"] if plan.size == "quick" else []
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.fidelity.parallel", *words],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        last = ended.stdout.strip().splitlines()[-1:] or ["nothing was said"]
        say(f"{plan.claim.id} seed {seed}: {last[0]}" if not ended.returncode else f"failed\n{ended.stdout}")

    return {
        plan.claim.id: [
            pool.submit(measure, plan, seed)
            for seed, place in zip(plan.claim.seeds, plan.places, strict=True)
            if not place.exists()
        ]
        for plan in plans
    }


def main(words: list[str] | None = None) -> int:
    """Measure one trial of a claim and keep it."""
    import torch

    from benchmarks.fidelity.registry import claims
    from benchmarks.fidelity.suite import measured, planned

    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity.parallel", description=main.__doc__)
    parser.add_argument("claim")
    parser.add_argument("seed", type=int)
    parser.add_argument("--kept", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    [claim] = claims([options.claim])
    plan = planned(claim, options.quick, options.kept)
    trial = measured(claim, plan.setting, options.seed)
    kept.save(plan.places[claim.seeds.index(options.seed)], trial)
    print(f"{trial.seconds:.1f} s, {trial.cpu_seconds:.1f} s of processors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
