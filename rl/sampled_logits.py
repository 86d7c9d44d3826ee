"""Distillation through K sampled logits a token, as Gemma 3 was distilled (Gemma 3 report, section 2.2)."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from policy.head import Scores

Mode = Literal["gumbel_renorm", "multinomial_counts", "topk"]


def draw_targets(
    teacher_logprobs_TV: Tensor, k: int, mode: Mode, seeds: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Draw K vocabulary entries a token from the teacher, and the weight that each gets as the student's target.

    Args:
        teacher_logprobs_TV: log-probabilities of the teacher, [T, V].
        k: entries a token, at most V.
        mode: `gumbel_renorm` draws without replacement by probability (Gumbel top-k) and renormalises the teacher's
            probabilities over the draw: the literal recipe, which sharpens the head. `multinomial_counts` draws with
            replacement and weighs by counts / K: unbiased. `topk` takes the likeliest: biased, no noise.
        seeds: one a token, whose draw then does not depend on the tokens beside it; none: torch's global generator.

    Returns:
        ids [T, K] (with repeats in `multinomial_counts`) and weights [T, K], which sum to 1 for each token.
    """
    scores_TV = teacher_logprobs_TV
    if mode == "multinomial_counts":
        ids_TK = torch.cat(
            [torch.multinomial(p.exp(), k, replacement=True, generator=own) for p, own in _seeded(scores_TV, seeds)]
        )
        return ids_TK, torch.full_like(ids_TK, 1.0 / k, dtype=teacher_logprobs_TV.dtype)
    if mode == "gumbel_renorm":
        noise_TV = torch.empty_like(scores_TV)
        for part_TV, own in _seeded(noise_TV, seeds):
            part_TV.exponential_(generator=own)
        scores_TV = scores_TV - noise_TV.log_()  # -log of a unit exponential is a standard Gumbel variable
    ids_TK = scores_TV.topk(k, dim=-1).indices
    return ids_TK, teacher_logprobs_TV.gather(-1, ids_TK).softmax(dim=-1)


def _seeded(rows_TV: Tensor, seeds: Sequence[int] | None) -> Iterator[tuple[Tensor, torch.Generator | None]]:
    """Each row, as [1, V], with a generator of its seed; without seeds all rows and no generator."""
    if seeds is None:
        yield rows_TV, None
        return
    generator = torch.Generator(rows_TV.device)
    for row_1V, seed in zip(rows_TV.split(1), seeds, strict=True):
        yield row_1V, generator.manual_seed(seed)


class ExactTargets:
    """Targets of a teacher that has its whole distribution, drawn while the student's head passes over the tokens.

    That distribution exists for one chunk of tokens at a time, next to the student's logits of the chunk. So the
    divergence over the whole vocabulary comes without another product. See `rl.teachers.teacher.TokenTargets`.
    """

    def __init__(
        self,
        logprobs: Callable[[slice], Tensor],
        own_M: Tensor,
        k: int,
        mode: Mode,
        seeds: Sequence[int] | None = None,
    ) -> None:
        """Targets by `draw_targets` of M tokens.

        Args:
            logprobs: the teacher's log-probabilities of a slice of the tokens, [C, V], in a tensor to write into.
            own_M: ids of the completions' own tokens, on the device of the student's logits.
            k: entries a token.
            mode: as in `draw_targets`.
            seeds: one a token.
        """
        self._logprobs, self.ids_M = logprobs, own_M
        self.k, self.mode, self.seeds = k, mode, seeds
        self.best_M = torch.full_like(own_M, -1)
        self.own_M = torch.full(own_M.shape, math.nan, device=own_M.device)
        # -H(teacher) - sum_v p_teacher(v) student's logit of v
        self._gap_M = torch.zeros(len(own_M), dtype=torch.float32, device=own_M.device)

    def logprobs(self, chunk: slice) -> Tensor:
        """The teacher's log-probabilities of a chunk's rows, [C, V], the caller's to write into."""
        with torch.no_grad():
            teacher_CV = self._logprobs(chunk)
            self.best_M[chunk] = teacher_CV.argmax(dim=-1)
            self.own_M[chunk] = teacher_CV.gather(-1, self.ids_M[chunk].unsqueeze(-1)).squeeze(-1).float()
        return teacher_CV

    def choose(self, chunk: slice, student_CV: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and weights, [C, K], of a chunk's rows."""
        with torch.no_grad():
            teacher_CV = self.logprobs(chunk)
            targets = draw_targets(teacher_CV, self.k, self.mode, self.seeds and self.seeds[chunk])
            probability_CV = teacher_CV.exp()
            teacher_CV -= student_CV
            self._gap_M[chunk] = torch.linalg.vecdot(probability_CV, teacher_CV)
        return targets

    def divergence(self, student: Scores) -> Tensor:
        """KL(teacher || student) over the whole vocabulary, [M], in nats, once every chunk has passed `choose`."""
        return self._gap_M + student.normaliser
