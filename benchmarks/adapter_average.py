"""How far the moving average of LoRA adapters is from the moving average of the weights that they make.

`python -m benchmarks.adapter_average [--quick] [--json PATH] [--ranks 4 16] [--rates 0.05 0.01] [--seeds 3]
[--steps 400]`. Adapters of `tiny` are trained on repeated random tokens. Beside them run the exact average of each
product B A, the averages of A and of B (what earlier versions kept), and factors of one, two and four times the
adapters' rank, with `kept`, the rank that training uses. Distances are Frobenius norms over all modules, relative to
the lag, the distance between the exact average and the live weights; the worst of all logged steps is shown. The last
rows are milliseconds of one update at the shapes of Gemma 3's MLP matrices, beside the average of the whole product.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.results import Row, print_rows, write_rows
from gemsmith.policy.adapter_products import adapter_pairs, averaged_product
from gemsmith.policy.config import LoraConfig, average_rank
from gemsmith.policy.loading.lora import with_lora
from gemsmith.policy.loading.tiny import tiny_policy

SHAPES = {"270M": (2048, 640), "1B": (6912, 1152), "4B": (10_240, 2560)}
LOGGED = 25
Factors = list[tuple[Tensor, Tensor]]


class Averages:
    """The averages of one training's adapters: exact products, separate factors, and factors of several ranks."""

    def __init__(self, live: Factors, rank: int, rate: float) -> None:
        """Start at the products `live`, which are 0."""
        self.rate, self.exact, self.separate = rate, [b @ a for b, a in live], live
        self.ranks = {f"{n} x rank": n * rank for n in (1, 2, 4)} | {"kept": average_rank(rank)}
        self.factors = dict.fromkeys(self.ranks, live)

    def update(self, live: Factors) -> None:
        """Follow the live factors by one step."""
        self.exact = [average.lerp(b @ a, self.rate) for average, (b, a) in zip(self.exact, live, strict=True)]
        pairs = zip(self.separate, live, strict=True)
        self.separate = [(b.lerp(new_b, self.rate), a.lerp(new_a, self.rate)) for (b, a), (new_b, new_a) in pairs]
        for name, rank in self.ranks.items():
            pairs = zip(self.factors[name], live, strict=True)
            self.factors[name] = [averaged_product(*average, *new, self.rate, rank) for average, new in pairs]

    def errors(self, live: Factors) -> dict[str, float]:
        """Return each average's distance to the exact one, over the lag."""
        lag = _norm([b @ a - average for (b, a), average in zip(live, self.exact, strict=True)])
        kept = {"A and B apart": self.separate, **self.factors}
        return {
            name: _norm([b @ a - average for (b, a), average in zip(factors, self.exact, strict=True)]) / lag
            for name, factors in kept.items()
        }


def _norm(tensors: list[Tensor]) -> float:
    return float(sum(tensor.double().square().sum() for tensor in tensors)) ** 0.5


def trained(rank: int, rate: float, seed: int, steps: int) -> dict[str, float]:
    """Train adapters and return the worst error of each average over the logged steps."""
    torch.manual_seed(seed)
    model = with_lora(tiny_policy("small", seed).model, LoraConfig(rank=rank, alpha=2 * rank))
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    pairs = adapter_pairs(list(parameters))

    def live() -> Factors:
        return [(parameters[b].detach().clone(), parameters[a].detach().clone()) for b, a in pairs]

    averages, worst = Averages(live(), rank, rate), dict[str, float]()
    optimiser = torch.optim.AdamW(parameters.values(), lr=1e-3)
    rows_NL = torch.randint(100, 500, (64, 24))
    rows_NL[:, 1::2] = rows_NL[:, ::2]
    for step in range(1, steps + 1):
        batch_BL = rows_NL[torch.randint(0, len(rows_NL), (8,))]
        optimiser.zero_grad()
        model(input_ids=batch_BL, labels=batch_BL).loss.backward()
        optimiser.step()
        averages.update(live())
        if step % LOGGED == 0:
            worst = {name: max(error, worst.get(name, 0.0)) for name, error in averages.errors(live()).items()}
    return worst


def milliseconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times)


def _average_whole(whole: Tensor, b: Tensor, a: Tensor) -> None:
    whole.lerp_(b @ a, 0.01)


def costs() -> list[Row]:
    """Time an update of one module, as factors and as a whole product."""
    rows = []
    for name, (out, width) in SHAPES.items():
        average = torch.randn(out, average_rank(16)), torch.randn(average_rank(16), width)
        adapter = torch.randn(out, 16), torch.randn(16, width)
        whole = torch.zeros(out, width)
        factored = milliseconds(partial(averaged_product, *average, *adapter, 0.01))
        dense = milliseconds(partial(_average_whole, whole, *adapter))
        rows.append(Row(f"{name}'s MLP: one update at rank 16", factored, "ms", "the whole product", dense))
    return rows


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.01])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    asked = parser.parse_args()
    if asked.quick:
        asked.ranks, asked.seeds, asked.steps = [4], 1, 50
    rows = []
    for rank in asked.ranks:
        for rate in asked.rates:
            found = [trained(rank, rate, seed, asked.steps) for seed in range(asked.seeds)]
            apart = statistics.mean(one["A and B apart"] for one in found)
            for name in found[0]:
                values = [one[name] for one in found]
                spread = (max(values) - min(values)) / 2
                row = Row(
                    f"rank {rank}, rate {rate:g}: {name}", statistics.mean(values), "of the lag", "apart", apart, spread
                )
                rows.append(row)
    rows += costs()
    print_rows(rows, "distance to the average of the products B A, worst step")
    if asked.json:
        write_rows(rows, asked.json)


if __name__ == "__main__":
    main()
