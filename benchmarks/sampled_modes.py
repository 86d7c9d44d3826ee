"""What a student of full capacity learns from K sampled logits per token, by the mode that samples and weighs them.

`python -m benchmarks.sampled_modes [--quick] [--json PATH] [--seeds 8] [--k 256 64] [--entries 2000] [--exponent 1.2]
[--steps 1000] [--tokens 64]`. The teacher is a Zipf law and the student a table of one logit per entry, which can
represent the teacher exactly. It is trained with the head and the targets of the `distill` stage, so that what is left
is the mode's doing. "distinct" is no mode of the toolkit: another reading of the report, which samples with replacement
and forgets the counts.

Head: mass of the 16 most likely entries over the teacher's. Tail: the same for the less likely half. The limit is the
mean target over all tokens seen, which is the table with the least cross-entropy. Intervals are 95% (Student's t) over
the seeds.
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.results import Row, print_rows, write_rows
from gemsmith.policy.head.vocabulary_head import Targets, weighted_sum
from gemsmith.rl.distillation.sampled_logits import Mode, draw_targets

HEAD = 16
MODES: dict[str, Mode] = {
    "multinomial_counts": "multinomial_counts",
    "gumbel_renorm": "gumbel_renorm",
    "topk": "topk",
    "distinct": "multinomial_counts",
}
LEARNING_RATE = 0.1
STUDENT_T = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365}  # 97.5% by degrees of freedom


def zipf(entries: int, exponent: float) -> Tensor:
    """Return log-probabilities, [V], of entries in the order of their rank."""
    return (-exponent * torch.arange(1, entries + 1, dtype=torch.float64).log()).log_softmax(0).float()


def targets_of(name: str, teacher_V: Tensor, k: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Return ids and weights of one step's tokens, [T, K]."""
    teacher_TV = teacher_V.expand(tokens, -1).contiguous()
    ids_TK, weights_TK = draw_targets(teacher_TV, k, MODES[name])
    if name == "distinct":  # each entry that was sampled counts once, with the teacher's probability
        ids_TK = ids_TK.sort(dim=-1).values
        first_TK = torch.ones_like(ids_TK, dtype=torch.bool)
        first_TK[:, 1:] = ids_TK[:, 1:] != ids_TK[:, :-1]
        weights_TK = teacher_TV.gather(-1, ids_TK).where(first_TK, -math.inf).softmax(dim=-1)
    return ids_TK, weights_TK


def learnt(name: str, teacher_V: Tensor, k: int, steps: int, tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    """Train a table from uniform logits; return its log-probabilities and the mean target, [V] each."""
    torch.manual_seed(seed)
    table_V1 = torch.zeros(len(teacher_V), 1, requires_grad=True)
    mean_V = torch.zeros(len(teacher_V), dtype=torch.float64)
    hidden_T1, weight_T = torch.ones(tokens, 1), torch.full((tokens,), 1.0 / tokens)
    optimiser = torch.optim.Adam([table_V1], lr=LEARNING_RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        ids_TK, weights_TK = targets_of(name, teacher_V, k, tokens)
        mean_V.index_add_(0, ids_TK.flatten(), weights_TK.flatten().double() / (steps * tokens))
        total, _ = weighted_sum(hidden_T1, table_V1, Targets.given(ids_TK, weights_TK), weight_T)
        optimiser.zero_grad()
        (-total).backward()
        optimiser.step()
        schedule.step()
    return table_V1.detach()[:, 0].log_softmax(0), mean_V.log().float()


def measured(name: str, teacher_V: Tensor, k: int, steps: int, tokens: int, seed: int) -> dict[str, float]:
    """Return head and tail ratios, of the trained table and in the limit, and the trained table's KL and entropy."""
    student_V, limit_V = learnt(name, teacher_V, k, steps, tokens, seed)
    p_V, half = teacher_V.exp(), len(teacher_V) // 2

    def ratio(logprobs_V: Tensor, part: slice) -> float:
        return float(logprobs_V[part].exp().sum() / p_V[part].sum())

    return {
        "head": ratio(student_V, slice(HEAD)),
        "tail": ratio(student_V, slice(half, None)),
        "head in the limit": ratio(limit_V, slice(HEAD)),
        "tail in the limit": ratio(limit_V, slice(half, None)),
        "KL(teacher || student)": float((p_V * (teacher_V - student_V)).sum()),
    }


def interval(values: Sequence[float]) -> float:
    """Return half the width of the 95% interval of the mean."""
    degrees = len(values) - 1
    if not degrees:
        return math.inf
    return STUDENT_T.get(degrees, 1.96) * statistics.stdev(values) / math.sqrt(len(values))


def main() -> None:
    """Measure every mode and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--k", type=int, nargs="+", default=[256, 64])
    parser.add_argument("--entries", type=int, default=2000)
    parser.add_argument("--exponent", type=float, default=1.2)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=64)
    asked = parser.parse_args()
    if asked.quick:
        asked.seeds, asked.steps = 2, 200
    teacher_V, rows = zipf(asked.entries, asked.exponent), []
    for k in asked.k:
        for name in MODES:
            found = [measured(name, teacher_V, k, asked.steps, asked.tokens, seed) for seed in range(asked.seeds)]
            for measure in found[0]:
                values = [one[measure] for one in found]
                # The teacher's value: its masses are what the ratios are over, and its KL from itself is 0.
                exact = 0.0 if measure.startswith("KL") else 1.0
                unit = "nats" if measure.startswith("KL") else "of its mass"
                row = Row(
                    f"K {k}, {name}: {measure}", statistics.mean(values), unit, "teacher", exact, interval(values)
                )
                rows.append(row)
    print_rows(rows, f"Zipf {asked.exponent} over {asked.entries} entries, {asked.seeds} seeds")
    if asked.json:
        write_rows(rows, asked.json)


if __name__ == "__main__":
    main()
