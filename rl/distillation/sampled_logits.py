"""Distillation with K sampled logits per token (Gemma 3 report, section 2.2)."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from gemsmith.policy.head.tiled_matmul import chunk_rows, row_parts, slices, widened
from gemsmith.policy.head.vocabulary_head import VocabularyScores

Mode = Literal["gumbel_renorm", "multinomial_counts", "topk"]


def draw_targets(
    teacher_logprobs_TV: Tensor, k: int, mode: Mode, seeds: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Choose K vocabulary entries per token from the teacher's distribution, with their target weights.

    Args:
        teacher_logprobs_TV: log-probabilities of the teacher, [T, V].
        k: entries per token, at most V.
        mode: `gumbel_renorm` samples without replacement (Gumbel top-k) and renormalises the teacher's probabilities
            over the sample; this sharpens the distribution's head and thins its tail. `multinomial_counts` samples
            with replacement and weighs by counts / K: unbiased. `topk` takes the most likely: biased, no noise.
        seeds: one per token, which makes a token's sample independent of its neighbours; None: torch's global
            generator.

    Returns:
        ids [T, K] (with repeats in `multinomial_counts`) and weights [T, K], which sum to 1 for each token.
    """
    parts = [
        _draw(teacher_logprobs_TV[part], k, mode, seeds and seeds[part]) for part in row_parts(teacher_logprobs_TV)
    ]
    ids_TK = torch.cat(parts)
    if mode == "multinomial_counts":
        return ids_TK, torch.full_like(ids_TK, 1.0 / k, dtype=teacher_logprobs_TV.dtype)
    return ids_TK, teacher_logprobs_TV.gather(-1, ids_TK).softmax(dim=-1)


def _draw(scores_RV: Tensor, k: int, mode: Mode, seeds: Sequence[int] | None) -> Tensor:
    """Return the ids of the chosen entries, [R, K]."""
    if mode == "multinomial_counts":
        rows = _seeded(scores_RV.exp(), seeds)
        return torch.cat([torch.multinomial(p, k, replacement=True, generator=own) for p, own in rows])
    if mode == "gumbel_renorm":
        noise_RV = torch.empty_like(scores_RV, dtype=widened(scores_RV.dtype))
        for part_RV, own in _seeded(noise_RV, seeds):
            part_RV.uniform_(generator=own)  # uniform and two logarithms: five times faster than `exponential_` and one
        scores_RV = scores_RV - noise_RV.log_().neg_().log_()  # minus a standard Gumbel variable
    return scores_RV.topk(k, dim=-1).indices


def _seeded(rows_RV: Tensor, seeds: Sequence[int] | None) -> Iterator[tuple[Tensor, torch.Generator | None]]:
    """Yield each row, [1, V], with a generator of its seed; without seeds, all rows at once and None."""
    if seeds is None:
        yield rows_RV, None
        return
    generator = torch.Generator(rows_RV.device)
    for row_1V, seed in zip(rows_RV.split(1), seeds, strict=True):
        yield row_1V, generator.manual_seed(seed)


class ExactTargets:
    """Targets of a teacher with its full distribution, sampled while the student's head processes the tokens.

    The distribution exists for one chunk of tokens at a time, together with the student's logits of the chunk, so that
    the divergence over the whole vocabulary needs no further matmul. See `gemsmith.rl.teachers.teacher.TokenTargets`.
    """

    def __init__(
        self,
        logprobs: Callable[[slice], Tensor],
        own_M: Tensor,
        k: int,
        mode: Mode,
        seeds: Sequence[int] | None = None,
    ) -> None:
        """Create targets of M tokens by `draw_targets`.

        Args:
            logprobs: function from a slice of the tokens to the teacher's log-probabilities, [C, V], in a new tensor
                that the caller may overwrite. V may be less than the student's: further rows are padding.
            own_M: ids of the completion tokens, [M], on the device of the student's logits.
            k: entries per token.
            mode: see `draw_targets`.
            seeds: one per token.
        """
        self._logprobs, self.ids_M = logprobs, own_M
        self.k, self.mode, self.seeds = k, mode, seeds
        self.best_M = torch.full_like(own_M, -1)
        self.own_M = torch.full(own_M.shape, math.nan, device=own_M.device)
        # KL(teacher || student) minus the normaliser: sum_v p(v) (log p(v) - student_logit(v)), p the teacher
        self._gap_M = torch.zeros(len(own_M), dtype=torch.float32, device=own_M.device)

    def logprobs(self, chunk: slice) -> Tensor:
        """Return the teacher's log-probabilities of a chunk's rows, [C, V]; the caller may overwrite the tensor."""
        with torch.no_grad():
            teacher_CV = self._logprobs(chunk)
            self.best_M[chunk] = teacher_CV.argmax(dim=-1)
            ids_C = self.ids_M[chunk]
            known_C = ids_C < teacher_CV.shape[1]  # a student with more rows may sample one that is padding
            own_C = teacher_CV.gather(-1, ids_C.where(known_C, 0).unsqueeze(-1)).squeeze(-1).float()
            self.own_M[chunk] = own_C.where(known_C, math.nan)
        return teacher_CV

    def choose(self, chunk: slice, student_CV: Tensor) -> tuple[Tensor, Tensor]:
        """Return ids and weights, [C, K], of a chunk's rows; a quarter of the chunk at a time, to save memory."""
        rows = max(1, chunk_rows(student_CV.shape[1]) // 4)
        parts = [
            self._choose(slice(part.start + chunk.start, part.stop + chunk.start), student_CV[part])
            for part in slices(len(student_CV), rows)
        ]
        ids, weights = zip(*parts, strict=True)
        return torch.cat(ids), torch.cat(weights)

    def _choose(self, chunk: slice, student_CV: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            teacher_CV = self.logprobs(chunk)
            targets = draw_targets(teacher_CV, self.k, self.mode, self.seeds and self.seeds[chunk])
            for part in row_parts(teacher_CV):
                teacher_RV = teacher_CV[part]
                student_RV = student_CV[part, : teacher_RV.shape[1]]  # the teacher's probability of further rows is 0
                self._gap_M[chunk][part] = torch.linalg.vecdot(teacher_RV.exp(), teacher_RV.sub_(student_RV))
        return targets

    def divergence(self, student: VocabularyScores) -> Tensor:
        """Return KL(teacher || student) over the whole vocabulary, [M], in nats; call it after the last `choose`."""
        return self._gap_M + student.normaliser
