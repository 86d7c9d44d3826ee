"""Targets of a teacher that gives K entries a token and no distribution: a store's, or a server's."""

import math

import torch
from torch import Tensor

from gemsmith.policy.head.vocabulary_head import VocabularyScores


class SparseTargets:
    """K entries of M tokens with their log-probabilities; see `gemsmith.rl.teachers.teacher.TokenTargets`."""

    def __init__(
        self, ids_MK: Tensor, logprobs_MK: Tensor, weights_MK: Tensor, own_M: Tensor, drawn: bool = True
    ) -> None:
        """Targets on whatever device the tensors are on.

        Args:
            ids_MK: the likeliest first; an entry may be repeated with the weight 0.
            logprobs_MK: of the teacher, in nats.
            weights_MK: what the student learns; they sum to 1 for each token.
            own_M: the teacher's log-probability of the completions' own tokens, nan where it is not known.
            drawn: whether a likelier entry than the first may have been left out; False for the K likeliest.
        """
        self.ids_MK, self.logprobs_MK, self.weights_MK, self.own_M = ids_MK, logprobs_MK, weights_MK, own_M
        # What was left out has together less than the first one: so has each entry of it.
        left_out_M = 1 - logprobs_MK.exp().where(weights_MK > 0, 0.0).sum(dim=-1)
        known_M = (logprobs_MK[:, 0].exp() > left_out_M) | (not drawn)
        self.best_M = ids_MK[:, 0].where(known_M, -1)

    def choose(self, chunk: slice, student_CV: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and weights, [C, K], of a chunk's rows."""
        return self.ids_MK[chunk], self.weights_MK[chunk].to(student_CV.dtype)

    def divergence(self, student: VocabularyScores) -> Tensor:
        """An estimate of KL(teacher || student) from the K entries, [M], in nats.

        sum_k w_k (log p_teacher(k) - log p_student(k)) is 0 for a student that is the teacher. With counts as weights
        its mean over draws is the divergence; otherwise it leans to the likely entries as the weights do.
        """
        return (self.weights_MK * self.logprobs_MK).sum(dim=-1) - student.logprobs

    def logprobs(self, chunk: slice) -> Tensor:
        """There are none over the whole vocabulary: whoever wants them asks `exact` first."""
        raise NotImplementedError("a teacher of K entries has no distribution over the whole vocabulary")


def own_logprobs(ids_MK: Tensor, logprobs_MK: Tensor, own_M: Tensor) -> Tensor:
    """Log-probabilities of the tokens `own_M` where they are among the K entries, else nan; [M]."""
    same_MK = ids_MK == own_M.unsqueeze(-1)
    found_M = logprobs_MK.where(same_MK, -math.inf).amax(dim=-1)
    return found_M.where(same_MK.any(dim=-1), torch.full_like(found_M, math.nan))
