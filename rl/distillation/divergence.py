"""Divergences between a teacher and a student over the whole vocabulary, with their gradients (GKD, section 2).

P is the teacher's distribution of a token, Q the student's, z the student's logits. Every gradient is of the form
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
    """D of each row, and its gradient by the student's logits.

    Args:
        teacher_CV: log P, [C, V].
        student_CV: log Q, [C, V].
        divergence: `forward` KL(P || Q), with gradient q - p. `reverse` KL(Q || P), with r = log q - log p.
            `jsd` beta KL(P || M) + (1 - beta) KL(Q || M), M = beta P + (1 - beta) Q (equation 1), with
            r = (1 - beta) (log q - log m); it is 0 for any P and Q where beta is 0 or 1.
        beta: of `jsd`; at 0 the forward and at 1 the reverse divergence are meant, to which D / beta and
            D / (1 - beta) tend.

    Returns:
        [C] in nats, and [C, V], which sums to 0 over V.
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
    """What is told of M tokens, whatever was lowered; without gradients.

    Attributes:
        kl_M: KL(P || Q), in nats, as well as the teacher can tell.
        entropy_M: the student's, in nats.
        agrees_M: whether the student's likeliest entry is the teacher's.
        own_M: the teacher's log-probability of the sequences' own tokens, in nats; nan where it is not known.
    """

    kl_M: Tensor
    entropy_M: Tensor
    agrees_M: Tensor
    own_M: Tensor


class WholeDivergence:
    """Minus a divergence as an objective of the student's head, which asks for one chunk of tokens after the other."""

    def __init__(self, targets: TokenTargets, divergence: Divergence, beta: float) -> None:
        """Of the tokens that `targets` are of, from a teacher that is `exact`; see `divergence_and_gradient`."""
        self.targets, self.kind, self.beta = targets, divergence, beta
        self._kl_M = torch.zeros(len(targets.best_M), device=targets.best_M.device)

    @property
    def objective(self) -> Objective:
        """For the head. `best` is whether the likeliest entry is the teacher's."""
        return Objective(self._evaluate)

    def watched(self, scores: VocabularyScores) -> Watched:
        """What the head found, once every chunk has passed."""
        return Watched(self._kl_M, scores.entropy, scores.best, self.targets.own_M)

    def _evaluate(self, chunk: slice, logits_CV: Tensor) -> VocabularyScores:
        teacher_CV = self.targets.logprobs(chunk)
        highest_C = logits_CV.amax(dim=-1)
        best_C = logits_CV.gather(-1, self.targets.best_M[chunk].unsqueeze(-1)).squeeze(-1) >= highest_C
        normaliser_C = logits_CV.logsumexp(dim=-1)
        value_C, entropy_C = torch.empty_like(normaliser_C), torch.empty_like(normaliser_C)
        for part in row_parts(logits_CV):
            teacher_RV, student_RV = teacher_CV[part], logits_CV[part] - normaliser_C[part].unsqueeze(-1)
            value_C[part], gradient_RV = divergence_and_gradient(teacher_RV, student_RV, self.kind, self.beta)
            entropy_C[part] = -torch.linalg.vecdot(student_RV.exp(), student_RV)
            self._kl_M[chunk][part] = torch.linalg.vecdot(teacher_RV.exp(), teacher_RV - student_RV).float()
            logits_CV[part] = gradient_RV
        return VocabularyScores(-value_C, normaliser_C, entropy_C, best_C, highest_C)


class SampledDivergence:
    """KL(P || Q) but for P's entropy, by the entries that a teacher draws: cross-entropy to them, to be lowered."""

    def __init__(self, targets: TokenTargets) -> None:
        """Of the tokens that `targets` are of, from any teacher."""
        self.targets = targets
        self._best_logit_M = torch.zeros(len(targets.best_M), device=targets.best_M.device)

    @property
    def objective(self) -> Targets:
        """For the head."""
        return Targets(self._choose)

    def watched(self, scores: VocabularyScores) -> Watched:
        """What the head found, once every chunk has passed."""
        agrees_M = (self.targets.best_M >= 0) & (self._best_logit_M >= scores.highest)
        return Watched(self.targets.divergence(scores), scores.entropy, agrees_M, self.targets.own_M)

    def _choose(self, chunk: slice, student_CV: Tensor) -> tuple[Tensor, Tensor]:
        chosen = self.targets.choose(chunk, student_CV)
        best_C1 = self.targets.best_M[chunk].clamp(min=0).unsqueeze(-1)
        self._best_logit_M[chunk] = student_CV.gather(-1, best_C1).squeeze(-1).float()
        return chosen
