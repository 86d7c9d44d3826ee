"""Distillation through K sampled logits a token, as Gemma 3 was distilled (Gemma 3 report, section 2.2)."""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from policy.head import Scores, chunk_logits

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


class TeacherTargets:
    """A teacher's sampled targets, drawn while the student's head passes over the tokens (policy/head.py).

    The teacher's distribution exists for one chunk of tokens at a time, next to the student's logits of the chunk. So
    the divergence over the whole vocabulary comes without another product.
    """

    def __init__(
        self,
        hidden_MD: Tensor,
        weight_VD: Tensor,
        k: int,
        mode: Mode,
        temperature: float = 1.0,
        seeds: Sequence[int] | None = None,
    ) -> None:
        """Targets of the M tokens that `hidden_MD` predicts under the teacher's head, by `draw_targets`."""
        self.hidden_MD, self.weight_VD, self.temperature = hidden_MD, weight_VD, temperature
        self.k, self.mode, self.seeds = k, mode, seeds
        # -H(teacher) - sum_v p_teacher(v) student's logit of v
        self._gap_M = torch.zeros(len(hidden_MD), dtype=torch.float32, device=hidden_MD.device)

    def choose(self, chunk: slice, student_CV: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and weights, [C, K], of a chunk's rows."""
        with torch.no_grad():
            teacher_CV = chunk_logits(self.hidden_MD[chunk], self.weight_VD).div_(self.temperature)
            teacher_CV -= teacher_CV.logsumexp(dim=-1, keepdim=True)
            targets = draw_targets(teacher_CV, self.k, self.mode, self.seeds and self.seeds[chunk])
            probability_CV = teacher_CV.exp()
            teacher_CV -= student_CV
            self._gap_M[chunk] = torch.linalg.vecdot(probability_CV, teacher_CV)
        return targets

    def divergence(self, student: Scores) -> Tensor:
        """KL(teacher || student) over the whole vocabulary, [M], in nats, once every chunk has passed."""
        return self._gap_M + student.normaliser
