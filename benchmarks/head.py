"""The vocabulary head of Gemma 3 270M, forward and backward: ours against TRL's chunked functions and plain logits.

`python -m benchmarks.head [--quick] [--json PATH]`; float32, 262,144 entries, width 640. Frozen is a head under LoRA,
trained one whose weight gets a gradient. Contenders have a process each and take turns. TRL has no loss on sampled
logits: its divergence over the whole distribution stands for it, which has the student's and the teacher's logits too.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from trl.kernels import ChunkedLogProbFunction
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from benchmarks.results import Row, print_rows, write_rows
from benchmarks.turns import contest, take_turns
from gemsmith.policy.head.vocabulary_head import Targets, logprobs, weighted_sum
from gemsmith.rl.distillation.sampled_logits import ExactTargets, draw_targets
from gemsmith.rl.teachers.in_process import head_logprobs

VOCABULARY, WIDTH, SAMPLED = 262144, 640, 256
TRL_TILE = 32768  # entries of a tile where TRL's trainers call its function
LOSSES = ("log-probabilities", "cross-entropy", "sampled-256")
CONTENDERS = ("ours", "TRL", "plain")
Loss = Callable[[Tensor, Tensor], Tensor]


def loss_of(contender: str, loss: str, ids_M: Tensor, teacher_MD: Tensor, teacher_VD: Tensor) -> Loss:
    """Return a scalar of the student's hidden states and head."""
    return {"ours": _ours, "TRL": _trl, "plain": _plain}[contender](loss, ids_M, teacher_MD, teacher_VD)


def _ours(loss: str, ids_M: Tensor, teacher_MD: Tensor, teacher_VD: Tensor) -> Loss:
    share_M = torch.full((len(ids_M),), -1.0 / len(ids_M))
    if loss == "log-probabilities":
        return lambda hidden, weight: -logprobs(hidden, weight, Targets.given(ids_M)).mean()
    if loss == "cross-entropy":
        return lambda hidden, weight: weighted_sum(hidden, weight, Targets.given(ids_M), share_M)[0]

    def sampled(hidden: Tensor, weight: Tensor) -> Tensor:
        targets = ExactTargets(head_logprobs(teacher_MD, teacher_VD), ids_M, SAMPLED, "gumbel_renorm")
        total, scores = weighted_sum(hidden, weight, Targets(targets.choose), share_M)
        targets.divergence(scores)
        return total

    return sampled


def _trl(loss: str, ids_M: Tensor, teacher_MD: Tensor, teacher_VD: Tensor) -> Loss:
    if loss == "sampled-256":
        return lambda hidden, weight: ChunkedDivergenceFunction.apply(
            hidden, weight, None, teacher_MD, teacher_VD, None, 0.0
        )[0].mean()
    outputs = () if loss == "log-probabilities" else ("entropy", "is_top1")  # what its SFT trainer asks for
    return lambda hidden, weight: (
        -ChunkedLogProbFunction.apply(hidden, weight, None, ids_M, 1.0, TRL_TILE, None, 1.0, outputs)[0].mean()
    )


def _plain(loss: str, ids_M: Tensor, teacher_MD: Tensor, teacher_VD: Tensor) -> Loss:
    if loss != "sampled-256":
        return lambda hidden, weight: torch.nn.functional.cross_entropy(hidden @ weight.t(), ids_M)

    def sampled(hidden: Tensor, weight: Tensor) -> Tensor:
        with torch.no_grad():
            teacher_MV = (teacher_MD @ teacher_VD.t()).log_softmax(-1)
            ids_MK, shares_MK = draw_targets(teacher_MV, SAMPLED, "gumbel_renorm")
        return -((hidden @ weight.t()).log_softmax(-1).gather(-1, ids_MK) * shares_MK).sum(-1).mean()

    return sampled


def contend(asked: str) -> None:
    """`asked` is the contender (ours, TRL, plain), the loss, frozen or trained, and the tokens."""
    contender, loss, kind, tokens = asked.split()
    torch.manual_seed(0)
    weight_VD = torch.randn(VOCABULARY, WIDTH).mul_(WIDTH**-0.5).requires_grad_(kind == "trained")
    teacher_VD = torch.randn(VOCABULARY, WIDTH).mul_(WIDTH**-0.5) if loss == "sampled-256" else weight_VD.detach()

    def work(count: int) -> None:
        hidden_MD = torch.randn(count, WIDTH, requires_grad=True)
        ids_M = torch.randint(VOCABULARY, (count,))
        loss_of(contender, loss, ids_M, hidden_MD.detach() + 0.1, teacher_VD)(hidden_MD, weight_VD).backward()
        weight_VD.grad = None

    work(4)  # libraries and the pages of the weights
    take_turns(lambda: work(int(tokens)))


def measure(loss: str, kind: str, tokens: int, rounds: int) -> list[Row]:
    """Seconds and peak memory beyond the weights, beside both rivals."""
    turns = contest("benchmarks.head", {name: f"{name} {loss} {kind} {tokens}" for name in CONTENDERS}, rounds)
    ours, label = turns["ours"], f"{loss}, {kind} head, {tokens} tokens"
    rivals = {"TRL": "TRL, chunked" if loss != "sampled-256" else "TRL, all entries", "plain": "plain logits"}
    return [Row(f"{label}", ours.seconds, "s", rivals[name], turns[name].seconds) for name in rivals] + [
        Row(f"{label}", ours.added / 2**20, "MiB", rivals[name], turns[name].added / 2**20) for name in rivals
    ]


def main() -> None:
    """Run what the command line asks for, print the rows, and write them where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="128 tokens, one round: two minutes")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contend:
        contend(options.contend)
        return
    sizes = [(128, 1)] if options.quick else [(512, 3), (2048, 1)]
    rows = [
        row
        for tokens, rounds in sizes
        for loss in LOSSES
        for kind in ("frozen", "trained")
        for row in measure(loss, kind, tokens, rounds)
    ]
    print_rows(rows, "the vocabulary head, forward and backward: time, memory beyond the weights; lower is better")
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
