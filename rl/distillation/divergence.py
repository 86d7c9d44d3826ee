"""Divergences between a teacher and a student over the whole vocabulary, with their gradients (GKD, section 2).

P is the teacher's distribution at a token, Q the student's, z the student's logits. Every gradient has the form
q_v (r_v - sum_u q_u r_u), because a divergence does not change when a constant is added to z.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gemsmith.policy.head.tiled_matmul import row_parts
from gemsmith.policy.head.vocabulary_head import Objective, Targets, VocabularyScores
from gemsmith.rl.teachers.teacher import TokenTargets

Divergence = Literal["forward", "reverse", "jsd"]


def divergence_and_gradient(
    teacher_CV: Tensor, student_CV: Tensor, divergence: Divergence, beta: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Return the divergence D of each row and its gradient with respect to the student's logits.

    Args:
        teacher_CV: log P, [C, V].
        student_CV: log Q, [C, V].
        divergence: `forward` is KL(P || Q), with gradient q - p. `reverse` is KL(Q || P), with r = log q - log p.
            `jsd` is beta KL(P || M) + (1 - beta) KL(Q || M) with M = beta P + (1 - beta) Q (equation 1) and
            r = (1 - beta) (log q - log m).
        beta: weight of `jsd`. Its value at 0 and 1 would be 0 for any P and Q, so that these select the limits of
            D / beta and D / (1 - beta) instead: the forward divergence at 0, the reverse at 1.

    Returns:
        The divergences, [C], in nats, and the gradients, [C, V], whose rows sum to 0.
    """
    if divergence == "jsd" and beta in (0.0, 1.0):
        divergence = "forward" if beta == 0.0 else "reverse"
    q_CV = student_CV.exp()
    if divergence == "forward":
        p_CV = teacher_CV.exp()
        return torch.linalg.vecdot(p_CV, teacher_CV - student_CV), q_CV - p_CV
    if divergence == "reverse":
        ratio_CV = student_CV - teacher_CV
        value_C = torch.linalg.vecdot(q_CV, ratio_CV)
        return value_C, q_CV.mul_(ratio_CV.sub_(value_C.unsqueeze(-1)))
    middle_CV = torch.logaddexp(teacher_CV + math.log(beta), student_CV + math.log1p(-beta))
    own_CV = student_CV - middle_CV
    own_C = torch.linalg.vecdot(q_CV, own_CV)
    value_C = beta * torch.linalg.vecdot(teacher_CV.exp(), teacher_CV - middle_CV) + (1 - beta) * own_C
    return value_C, q_CV.mul_(own_CV.sub_(own_C.unsqueeze(-1))).mul_(1 - beta)


@dataclass(frozen=True)
class Watched:
    """Per-token metrics of M tokens, without gradients, for any divergence.

    Attributes:
        kl_M: KL(P || Q), in nats; an estimate if the teacher is not `exact`.
        entropy_M: entropy of the student's distribution, in nats.
        agrees_M: True where student and teacher have the same most likely entry.
        own_M: the teacher's log-probability of the completion tokens, in nats; NaN where it is unknown.
    """

    kl_M: Tensor
    entropy_M: Tensor
    agrees_M: Tensor
    own_M: Tensor


class WholeDivergence:
    """Objective of the student's head: minus a divergence over the whole vocabulary, evaluated chunk by chunk."""

    def __init__(self, targets: TokenTargets, divergence: Divergence, beta: float) -> None:
        """Wrap `targets`, whose teacher must be `exact`; see `divergence_and_gradient`."""
        self.targets, self.kind, self.beta = targets, divergence, beta
        self._kl_M = torch.zeros(len(targets.best_M), device=targets.best_M.device)

    @property
    def objective(self) -> Objective:
        """Objective for the head; its `best` is True where student and teacher have the same most likely entry."""
        return Objective(self._evaluate)

    def watched(self, scores: VocabularyScores) -> Watched:
        """Return the metrics from the head's scores; call it after the last chunk."""
        return Watched(self._kl_M, scores.entropy, scores.best, self.targets.own_M)

    def _evaluate(self, chunk: slice, logits_CV: Tensor) -> VocabularyScores:
        teacher_CV = self.targets.logprobs(chunk)
        # Rows that the teacher does not use are padding: KL(Q || P) would be infinite with them. They are left out of
        # Q as well, and have no gradient.
        logits_CV[:, teacher_CV.shape[1] :] = 0.0
        logits_CV = logits_CV[:, : teacher_CV.shape[1]]
        highest_C = logits_CV.amax(dim=-1)
        best_C = logits_CV.gather(-1, self.targets.best_M[chunk].unsqueeze(-1)).squeeze(-1) >= highest_C
        normaliser_C = logits_CV.logsumexp(dim=-1)
        value_C, entropy_C = torch.empty_like(normaliser_C), torch.empty_like(normaliser_C)
        # A few rows at a time, so that the temporaries stay small next to the chunk's logits.
        for part in row_parts(logits_CV):
            teacher_RV, student_RV = teacher_CV[part], logits_CV[part] - normaliser_C[part].unsqueeze(-1)
            value_C[part], gradient_RV = divergence_and_gradient(teacher_RV, student_RV, self.kind, self.beta)
            entropy_C[part] = -torch.linalg.vecdot(student_RV.exp(), student_RV)
            self._kl_M[chunk][part] = torch.linalg.vecdot(teacher_RV.exp(), teacher_RV - student_RV).float()
            logits_CV[part] = gradient_RV  # the head expects the gradient in place of the logits
        return VocabularyScores(-value_C, normaliser_C, entropy_C, best_C, highest_C)


class SampledDivergence:
    """Objective of the student's head: cross-entropy to the teacher's sampled entries, KL(P || Q) plus a constant."""

    def __init__(self, targets: TokenTargets) -> None:
        """Wrap `targets` of any teacher."""
        self.targets = targets
        self._best_logit_M = torch.zeros(len(targets.best_M), device=targets.best_M.device)

    @property
    def objective(self) -> Targets:
        """Targets for the head."""
        return Targets(self._choose)

    def watched(self, scores: VocabularyScores) -> Watched:
        """Return the metrics from the head's scores; call it after the last chunk."""
        agrees_M = (self.targets.best_M >= 0) & (self._best_logit_M >= scores.highest)
        return Watched(self.targets.divergence(scores), scores.entropy, agrees_M, self.targets.own_M)

    def _choose(self, chunk: slice, student_CV: Tensor) -> tuple[Tensor, Tensor]:
        chosen = self.targets.choose(chunk, student_CV)
        best_C1 = self.targets.best_M[chunk].clamp(min=0).unsqueeze(-1)
        self._best_logit_M[chunk] = student_CV.gather(-1, best_C1).squeeze(-1).float()
        return chosen
