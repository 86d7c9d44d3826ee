"""Cost of a step of reinforcement as its work grows: seconds and peak memory over prompts, tokens, samples, runs.

`python -m benchmarks.costs [--quick] [--json PATH]`: `tiny` with random weights, all of them trained, and completions
that never end before their limit. Each cell has its own process and one core. A first training warms it up, and a
second one is measured: the median of its seconds between two calls of the reward, and the growth of the process. One
number grows at a time, from 16 prompts, 16 tokens and two samples (J-BOND: one of the policy and two of the anchor;
BOND: one and N). Two numbers summarise each growth: the exponent, the slope of a line through the logarithms (1 is
proportional, 0 costs nothing), and the cost of one more, the slope of a line through the numbers themselves.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.memory import peak_of
from benchmarks.results import Row, print_rows, write_rows
from benchmarks.turns import QUIET

STEPS = 6
SIZES = {"prompts": (8, 16, 32, 64), "tokens": (16, 32, 64, 128), "samples": (2, 4, 8, 16), "runs": (1, 2, 4)}
GROWS = {
    "reinforce": ("prompts", "tokens", "samples"),
    "jbond": ("prompts", "tokens"),
    "bond": ("samples",),
    "warp": ("runs",),
}
NAMES = {"reinforce": "REINFORCE", "jbond": "J-BOND", "bond": "BOND", "warp": "WARP"}
UNITS = {"prompts": "prompts", "tokens": "tokens", "samples": "samples (N)", "runs": "runs (M)"}
FEW = 2  # sizes under --quick


@dataclass(frozen=True)
class Cell:
    """One measurement: an algorithm and the sizes of its step; of WARP, of each run's."""

    algorithm: str
    prompts: int = 16
    tokens: int = 16
    samples: int = 2
    runs: int = 1


@dataclass(frozen=True)
class Cost:
    """Cost of a step; for WARP, seconds of the whole stage and bytes of its merge."""

    seconds: float
    added: int


def cell_of(algorithm: str, grown: str, size: int) -> Cell:
    """Return the cell in which one number has grown to a size."""
    sizes: dict[str, Any] = {"algorithm": algorithm, grown: size}
    return Cell(**sizes)


class Asked:
    """The share of even characters; it notes when it was asked, once a step, in seconds of this process's core.

    It sees to it that no later completion ends before its limit: a trainer gives the model the tokenizer's end.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.times = model, list[float]()

    def score(self, prompts: list[str], completions: list[str], columns: Any) -> list[float | None]:
        """Return the rewards."""
        self.times.append(time.process_time())
        self.model.generation_config.eos_token_id = [-1]
        return [sum(ord(letter) % 2 == 0 for letter in text) / max(len(text), 1) for text in completions]

    def close(self) -> None:
        """Nothing to close."""


def fields_of(cell: Cell, steps: int) -> dict[str, Any]:
    """Return the algorithm's configuration."""
    fields = {
        **{"data": "-", "rewards": ["even"], "steps": steps, "batch": cell.prompts, "learning_rate": 1e-4},
        **{"schedule": "constant", "save_every": 1000, "sampling": {"max_tokens": cell.tokens, "batch": 4096}},
    }
    if cell.algorithm == "reinforce":
        return {**fields, "kind": "reinforce", "samples": cell.samples}
    if cell.algorithm == "bond":
        return {**fields, "kind": "bond", "form": "bond", "n": cell.samples, "quantile_samples": cell.samples}
    if cell.algorithm == "warp":
        return {**fields, "kind": "reinforce", "samples": cell.samples, "kl_to": "anchor"}
    return {**fields, "kind": "bond"}


def trained(cell: Cell, folder: Path, steps: int, output: str = "output") -> list[float]:
    """Train `tiny` for some steps; when the reward was asked."""
    from gemsmith.contracts.stage import Stage
    from gemsmith.curation.example import Example
    from gemsmith.policy.config import PolicyConfig
    from gemsmith.policy.loading.load import load_policy
    from gemsmith.rl.rewards.compose import Rewards
    from gemsmith.rl.stages.reinforcement.config import BondStage, ReinforceStage
    from gemsmith.rl.stages.reinforcement.stage import train_policy

    fields = {"id": "s", **fields_of(cell, steps)}
    config = (BondStage if fields["kind"] == "bond" else ReinforceStage).model_validate(fields)
    policy = load_policy(PolicyConfig(model="tiny"))
    examples = [Example(prompt=f"{10 + i % 90} + {10 + 7 * i % 90} =") for i in range(cell.prompts)]
    stage, reward = Stage("s", folder / output, 0, root=folder), Asked(policy.model)
    rewards = Rewards({"even": reward}, {"even": 1.0})
    train_policy(policy, config, stage, rewards, examples, folder / f"{output}-steps", folder / output / "output")
    return reward.times


def cost_of(cell: Cell) -> Cost:
    """Measure a cell in this process."""
    with tempfile.TemporaryDirectory() as name:
        folder, times = Path(name), list[float]()
        trained(Cell(cell.algorithm, 2, 2), folder, 2, "first")
        if cell.algorithm == "warp":
            return warp_cost(cell, folder)
        added = peak_of(lambda: times.extend(trained(cell, folder, STEPS + 1)))
        return Cost(median(later - earlier for earlier, later in pairwise(times)), added)


def warp_cost(cell: Cell, folder: Path) -> Cost:
    """M runs one after the other and their merge, as the stage does them; the memory is the merge's."""
    from gemsmith.policy.config import PolicyConfig
    from gemsmith.policy.loading.load import load_policy, save_policy
    from gemsmith.weights.merge import slerp

    save_policy(load_policy(PolicyConfig(model="tiny")), folder / "start")
    begun = time.process_time()
    for run in range(cell.runs):
        trained(cell, folder, STEPS, f"run-{run}")
    runs = [folder / f"run-{run}" / "output" for run in range(cell.runs)]
    added = peak_of(lambda: slerp(folder / "start", runs, folder / "merged"))
    return Cost(time.process_time() - begun, added)


def measured(cells: list[Cell]) -> dict[Cell, Cost]:
    """Measure cells, each in a process of its own, on one core; libraries are loaded once, before they part."""
    os.environ |= {**QUIET, "OMP_NUM_THREADS": "1"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "gemsmith.rl.stages.reinforcement.stage",
            "gemsmith.rl.algorithms.bond",
            "gemsmith.rl.algorithms.reinforce",
            "deepspeed",
        ]
    )
    with context.Pool(1, maxtasksperchild=1) as pool:
        return dict(zip(cells, pool.imap(cost_of, cells), strict=True))


def exponent(sizes: list[int], values: list[float]) -> float:
    """Return the slope of a line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def slope(sizes: list[int], values: list[float]) -> float:
    """Return the cost of one more: the slope of a line through the numbers."""
    return float(np.polyfit(sizes, values, 1)[0])


def rows_of(algorithm: str, grown: str, costs: dict[int, Cost]) -> list[Row]:
    """Return the rows of a growth: every cell beside the first, then its exponent and slope."""
    title, sizes, unit = f"{NAMES[algorithm]}, {UNITS[grown]}", list(costs), UNITS[grown].split()[0]
    first = costs[sizes[0]]
    of = "stage" if algorithm == "warp" else "step"
    seconds = [costs[size].seconds for size in sizes]
    mebibytes = [costs[size].added / 2**20 for size in sizes]
    rows = []
    for size, value, memory in zip(sizes, seconds, mebibytes, strict=True):
        rows.append(Row(f"{title} {size}: a {of}", value, "s", f"{sizes[0]}", first.seconds))
        rows.append(Row(f"{title} {size}: memory", memory, "MiB", f"{sizes[0]}", mebibytes[0]))
    rows.append(Row(f"{title}: exponent of the seconds", exponent(sizes, seconds), "", "proportional", 1.0))
    rows.append(Row(f"{title}: exponent of the memory", exponent(sizes, mebibytes), "", "proportional", 1.0))
    rows.append(Row(f"{title}: for one more of the {unit}", 1000 * slope(sizes, seconds), "ms", "-", 0.0))
    rows.append(Row(f"{title}: for one more of the {unit}", 1024 * slope(sizes, mebibytes), "KiB", "-", 0.0))
    return rows


def line_of(algorithm: str, grown: str, costs: dict[int, Cost]) -> str:
    """Return the growth as a line of the table in docs/guides/training-cost.md."""
    sizes, unit = list(costs), UNITS[grown].split()[0]
    seconds = [cost.seconds for cost in costs.values()]
    mebibytes = [cost.added / 2**20 for cost in costs.values()]
    ends = f"{unit} {sizes[0]} to {sizes[-1]}"
    return (
        f"| {NAMES[algorithm]}, {ends} | {seconds[0]:.2f} to {seconds[-1]:.2f} s | {exponent(sizes, seconds):.2f} | "
        f"{1000 * slope(sizes, seconds):.0f} ms | {mebibytes[0]:.0f} to {mebibytes[-1]:.0f} MiB | "
        f"{exponent(sizes, mebibytes):.2f} |"
    )


def main() -> None:
    """Run what the command line asks for, print the rows, and write them where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="two sizes of each: two minutes")
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    growths = {
        (algorithm, grown): [cell_of(algorithm, grown, size) for size in SIZES[grown][: FEW if options.quick else None]]
        for algorithm, numbers in GROWS.items()
        for grown in numbers
    }
    known = measured(list(dict.fromkeys(cell for cells in growths.values() for cell in cells)))
    rows: list[Row] = []
    lines: list[str] = []
    for (algorithm, grown), cells in growths.items():
        costs = {getattr(cell, grown): known[cell] for cell in cells}
        rows += rows_of(algorithm, grown, costs)
        lines.append(line_of(algorithm, grown, costs))
    print_rows(rows, "what a step of reinforcement costs as it grows (memory: how far the process grew)")
    print("\n".join(lines))  # as docs/guides/training-cost.md holds them
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
