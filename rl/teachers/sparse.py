"""Targets of a teacher that provides K entries per token instead of a distribution: a store or a server."""

import math

import torch
from torch import Tensor

from gemsmith.policy.head.vocabulary_head import VocabularyScores


class SparseTargets:
    """K entries with log-probabilities for each of M tokens; see `gemsmith.rl.teachers.teacher.TokenTargets`."""

    def __init__(
        self, ids_MK: Tensor, logprobs_MK: Tensor, weights_MK: Tensor, own_M: Tensor, drawn: bool = True
    ) -> None:
        """Create targets on the device of the tensors.

        Args:
            ids_MK: ids of the entries, [M, K], most likely first; padding repeats an entry with weight 0.
            logprobs_MK: the teacher's log-probabilities of the entries, [M, K], in nats.
            weights_MK: target weights of the entries, [M, K]; they sum to 1 for each token.
            own_M: the teacher's log-probabilities of the completion tokens, [M]; NaN where unknown.
            drawn: True if the entries were sampled, so that the most likely entry may be missing; False for top K.
        """
        self.ids_MK, self.logprobs_MK, self.weights_MK, self.own_M = ids_MK, logprobs_MK, weights_MK, own_M
        # If all missing entries together are less likely than the first entry, then so is each of them.
        left_out_M = 1 - logprobs_MK.exp().where(weights_MK > 0, 0.0).sum(dim=-1)
        known_M = (logprobs_MK[:, 0].exp() > left_out_M) | (not drawn)
        self.best_M = ids_MK[:, 0].where(known_M, -1)

    def choose(self, chunk: slice, student_CV: Tensor) -> tuple[Tensor, Tensor]:
        """Return ids and weights, [C, K], of a chunk's rows."""
        return self.ids_MK[chunk], self.weights_MK[chunk].to(student_CV.dtype)

    def divergence(self, student: VocabularyScores) -> Tensor:
        """Return an estimate of KL(teacher || student) from the K entries, [M], in nats.

        The estimate, sum_k w_k (log p_teacher(k) - log p_student(k)), is 0 if the student equals the teacher. With
        counts as weights it is unbiased; other weights bias it towards likely entries.
        """
        return (self.weights_MK * self.logprobs_MK).sum(dim=-1) - student.logprobs

    def logprobs(self, chunk: slice) -> Tensor:
        """Raise NotImplementedError; callers must check `exact` first."""
        raise NotImplementedError(
            "this teacher provides K entries per token, not log-probabilities of the whole vocabulary"
        )


def own_logprobs(ids_MK: Tensor, logprobs_MK: Tensor, own_M: Tensor) -> Tensor:
    """Return log-probabilities, [M], of the tokens `own_M` if they are among the K entries, else NaN."""
    same_MK = ids_MK == own_M.unsqueeze(-1)
    found_M = logprobs_MK.where(same_MK, -math.inf).amax(dim=-1)
    return found_M.where(same_MK.any(dim=-1), torch.full_like(found_M, math.nan))
