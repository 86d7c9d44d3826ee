"""Targets of a teacher that provides K entries per token instead of a distribution: a store or a server."""

import math

import torch
from torch import Tensor

from gemsmith.contracts.errors import UserError
from gemsmith.curation.teacher_store.shard import LEAST_LOGPROB as LOG_ZERO
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


def used_entries(ids_MK: Tensor, logprobs_MK: Tensor, weights_MK: Tensor, used: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, log-probabilities and weights, [M, K] each, without the entries of rows that are padding.

    The rest is renormalised, which gives the teacher's distribution over the used rows. The places of the entries that
    are cut repeat the token's first entry, with weight 0 and a log-probability that stands for minus infinity.

    Args:
        ids_MK: ids of the entries, the most likely first.
        logprobs_MK: their log-probabilities, in nats.
        weights_MK: their target weights.
        used: number of rows that are no padding; all ids below it are kept.

    Raises:
        UserError: a token has no other entries.
    """
    cut_MK = ids_MK >= used
    if not cut_MK.any():
        return ids_MK, logprobs_MK, weights_MK
    mass_M1 = logprobs_MK.exp().where(cut_MK & (weights_MK > 0), 0.0).sum(dim=-1, keepdim=True)
    order_MK = cut_MK.int().argsort(dim=-1, stable=True)  # the entries that are kept first, in their order
    ids_MK, kept_MK, weights_MK = (values.gather(-1, order_MK) for values in (ids_MK, ~cut_MK, weights_MK))
    weights_MK = weights_MK.where(kept_MK, 0.0)
    total_M1 = weights_MK.sum(dim=-1, keepdim=True)
    if not bool((total_M1 > 0).all()):
        raise UserError(
            f"all entries that the teacher gives for a token are padding of its embedding (ids from {used} on): check "
            "that it is the right model, or raise sampled_logits"
        )
    logprobs_MK = (logprobs_MK.gather(-1, order_MK) - torch.log1p(-mass_M1)).clamp(max=0.0).where(kept_MK, LOG_ZERO)
    return ids_MK.where(kept_MK, ids_MK[:, :1]), logprobs_MK, weights_MK / total_M1


def own_logprobs(ids_MK: Tensor, logprobs_MK: Tensor, own_M: Tensor) -> Tensor:
    """Return log-probabilities, [M], of the tokens `own_M` if they are among the K entries, else NaN."""
    same_MK = ids_MK == own_M.unsqueeze(-1)
    found_M = logprobs_MK.where(same_MK, -math.inf).amax(dim=-1)
    return found_M.where(same_MK.any(dim=-1), torch.full_like(found_M, math.nan))
