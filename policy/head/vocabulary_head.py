"""The vocabulary head without its logits: log-probabilities and their gradients, a few hundred tokens at a time.

With 262,144 entries the logits of 4,096 tokens take 4.3 GB in float32, and plain autograd holds several such tensors.
This module needs one buffer of `CHUNK` elements. Compared with TRL's `ChunkedLogProbFunction` it supports several
weighted targets per token (sampled distillation), and needs fewer products. Every loss here is linear in the
log-probabilities with coefficients known beforehand, so the forward pass can finish its gradient while it has the
probabilities: 2 products of [tokens, vocabulary] x hidden with a frozen head, 3 with a trained one (TRL: 3 and 4).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from gemsmith.policy.head import tiled_matmul
from gemsmith.policy.head.tiled_matmul import add_product, chunk_logits, chunk_rows, rounds, slices, tile_width, widened

Choose = Callable[[slice, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Targets:
    """Targets of M tokens: entries of the vocabulary and their shares, which sum to 1 per token.

    Either tensors `ids_MK` and `shares_MK`, or `choose`, which is called once per chunk with the rows of the chunk and
    their logits [C, V] (read-only, not to be kept) and returns the two tensors for these rows.
    """

    choose: Choose

    @classmethod
    def given(cls, ids_MK: Tensor, shares_MK: Tensor | None = None) -> "Targets":
        """Return targets known beforehand; `ids_MK` may repeat entries within a token, and [M] means one entry per
        token.
        """
        ids_MK = ids_MK.unsqueeze(-1) if ids_MK.dim() == 1 else ids_MK
        shares_MK = torch.ones_like(ids_MK, dtype=torch.float32) if shares_MK is None else shares_MK
        return cls(lambda rows, _: (ids_MK[rows], shares_MK[rows]))


@dataclass(frozen=True)
class Objective:
    """A function of a token's logits to be maximised, instead of targets, where `evaluate` knows its gradient.

    `evaluate` is called once per chunk with its rows and their logits [C, V]. It returns the rows' scores, and
    overwrites the logits with *minus* the gradient of their `logprobs` with respect to them.
    """

    evaluate: "Callable[[slice, Tensor], VocabularyScores]"


@dataclass(frozen=True)
class VocabularyScores:
    """Scores per token, [M], float32, without gradients.

    Attributes:
        logprobs: sum_k share_k log p(id_k), in nats; for an `Objective`, its value.
        normaliser: log sum_v exp(logit_v).
        entropy: entropy of the distribution over the whole vocabulary, in nats; zeros if it was not requested.
        best: True if the token's first target has the highest logit; for an `Objective`, its own choice.
        highest: the highest logit.
    """

    logprobs: Tensor
    normaliser: Tensor
    entropy: Tensor
    best: Tensor
    highest: Tensor


def score(
    hidden_MD: Tensor, weight_VD: Tensor, targets: Targets | Objective, temperature: float = 1.0, entropy: bool = False
) -> VocabularyScores:
    """Score tokens without gradients; needs one product.

    Args:
        hidden_MD: hidden states at the positions that predict the tokens.
        weight_VD: the head's weight.
        targets: targets of each token.
        temperature: divides the logits.
        entropy: also compute the entropy.
    """
    with torch.no_grad():
        return _run(hidden_MD, weight_VD, targets, temperature, entropy)


def logprobs(hidden_MD: Tensor, weight_VD: Tensor, targets: Targets, temperature: float = 1.0) -> Tensor:
    """Return the log-probability of each token's targets, [M], float32; any differentiable function of it may follow.

    A frozen head needs 2 products; a trained one 4, because its gradient waits for those of the log-probabilities. If
    the loss is linear in them, `weighted_sum` needs 3. A trained head's backward pass calls `targets` again.
    """
    if _needs_gradients(hidden_MD, weight_VD):
        return _Logprobs.apply(hidden_MD, weight_VD, targets, temperature)
    return score(hidden_MD, weight_VD, targets, temperature).logprobs


def weighted_sum(
    hidden_MD: Tensor,
    weight_VD: Tensor,
    targets: Targets | Objective,
    coefficient_M: Tensor,
    entropy: bool = False,
    temperature: float = 1.0,
) -> tuple[Tensor, VocabularyScores]:
    """Return sum_m coefficient_m log p(targets of m), a differentiable float32 scalar, and the scores of the tokens.

    With an `Objective` it is the coefficients times its values.

    Args:
        hidden_MD: as in `score`.
        weight_VD: the head's weight; its gradient is computed if it is trained.
        targets: targets of each token, requested once.
        coefficient_M: constants; no gradient reaches them.
        entropy: also compute the entropy; this needs no product.
        temperature: divides the logits.
    """
    if not _needs_gradients(hidden_MD, weight_VD):
        scores = score(hidden_MD, weight_VD, targets, temperature, entropy)
        return (coefficient_M * scores.logprobs).sum(), scores
    total, *per_token = _WeightedSum.apply(hidden_MD, weight_VD, targets, coefficient_M, entropy, temperature)
    return total, VocabularyScores(*per_token)


class _WeightedSum(torch.autograd.Function):
    """Autograd function of the sum; the forward pass computes its gradients, the backward pass scales them.

    The backward pass needs nothing of the weight, so the weight may have been released by then (ZeRO-3).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: Tensor,
        weight_VD: Tensor,
        targets: Targets | Objective,
        coefficient_M: Tensor,
        entropy: bool,
        temperature: float,
    ) -> tuple[Tensor, ...]:
        grads = _Gradients.of(
            hidden_MD, weight_VD if ctx.needs_input_grad[1] else None, coefficient_M.to(widened(hidden_MD.dtype))
        )
        scores = _run(hidden_MD, weight_VD, targets, temperature, entropy, grads)
        ctx.save_for_backward(grads.hidden_MD, grads.weight_VD)
        ctx.dtypes = hidden_MD.dtype, weight_VD.dtype
        ctx.set_materialize_grads(False)
        per_token = tuple(getattr(scores, field.name) for field in fields(VocabularyScores))
        ctx.mark_non_differentiable(*per_token)
        return (coefficient_M * scores.logprobs).sum(), *per_token

    @staticmethod
    def backward(ctx: Any, *grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad[0] is None:
            return None, None, None, None, None, None
        hidden_MD, weight_VD = ctx.saved_tensors
        # In place: the weight's gradient is as large as the weight. A second backward pass is refused by autograd.
        scaled_VD = None if weight_VD is None else weight_VD.mul_(grad[0]).to(ctx.dtypes[1])
        return (hidden_MD * grad[0]).to(ctx.dtypes[0]), scaled_VD, None, None, None, None


class _Logprobs(torch.autograd.Function):
    """Autograd function of per-token log-probabilities; the backward pass recomputes the gradient of a trained
    weight.
    """

    @staticmethod
    def forward(ctx: Any, hidden_MD: Tensor, weight_VD: Tensor, targets: Targets, temperature: float) -> Tensor:
        trained = ctx.needs_input_grad[1]
        ones_M = hidden_MD.new_ones(len(hidden_MD), dtype=widened(hidden_MD.dtype))
        grads = None if trained else _Gradients.of(hidden_MD, None, ones_M)
        scores = _run(hidden_MD, weight_VD, targets, temperature, False, grads)
        ctx.targets, ctx.temperature, ctx.dtype = targets, temperature, hidden_MD.dtype
        # The Parameter itself is saved: under ZeRO-3 its data come back before the backward pass.
        ctx.save_for_backward(*((hidden_MD, weight_VD) if grads is None else (grads.hidden_MD,)))
        return scores.logprobs

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        if len(ctx.saved_tensors) == 1:
            return (ctx.saved_tensors[0] * grad[0].unsqueeze(-1)).to(ctx.dtype), None, None, None
        hidden_MD, weight_VD = ctx.saved_tensors
        grads = _Gradients.of(hidden_MD, weight_VD, grad[0])
        _run(hidden_MD, weight_VD, ctx.targets, ctx.temperature, False, grads)
        assert grads.weight_VD is not None
        return grads.hidden_MD.to(hidden_MD.dtype), grads.weight_VD.to(weight_VD.dtype), None, None


@dataclass(frozen=True)
class _Gradients:
    """Gradients of sum_m coefficient_m log p_m, filled chunk by chunk; the weight's gradient is None if it is
    frozen.
    """

    coefficient_M: Tensor
    hidden_MD: Tensor
    weight_VD: Tensor | None

    @classmethod
    def of(cls, hidden_MD: Tensor, weight_VD: Tensor | None, coefficient_M: Tensor) -> "_Gradients":
        dtype = widened(hidden_MD.dtype)
        weight = None if weight_VD is None else torch.zeros_like(weight_VD, dtype=dtype)
        return cls(coefficient_M, torch.zeros_like(hidden_MD, dtype=dtype), weight)


def _run(
    hidden_MD: Tensor,
    weight_VD: Tensor,
    targets: Targets | Objective,
    temperature: float,
    entropy: bool,
    grads: _Gradients | None = None,
) -> VocabularyScores:
    """Process the tokens chunk by chunk through one buffer of logits."""
    device = hidden_MD.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_MD.dtype
    size, vocabulary = len(hidden_MD), len(weight_VD)
    zeros_M = hidden_MD.new_zeros(size, dtype=widened(hidden_MD.dtype))
    scores = VocabularyScores(zeros_M, zeros_M.clone(), zeros_M.clone(), zeros_M.bool(), zeros_M.clone())
    rows = min(chunk_rows(vocabulary), max(size, 1))
    buffer_CV = hidden_MD.new_empty(rows, vocabulary, dtype=widened(dtype))
    with torch.autocast(device, enabled=False):
        for chunk in slices(size, rows):
            hidden_CD = hidden_MD[chunk].to(dtype)
            logits_CV = chunk_logits(hidden_CD, weight_VD, buffer_CV[: len(hidden_CD)])
            if temperature != 1.0:
                logits_CV.div_(temperature)
            if isinstance(targets, Objective):
                _evaluate(targets, scores, chunk, logits_CV)
                if grads is not None:
                    ones_C = torch.ones_like(logits_CV[:, 0])
                    _add_gradients(grads, chunk, logits_CV, ones_C, hidden_CD, weight_VD, temperature)
                continue
            ids_CK, shares_CK = targets.choose(chunk, logits_CV)
            mass_C = _score_chunk(scores, chunk, logits_CV, ids_CK, shares_CK)
            if entropy and (grads is None or rounds(hidden_CD)):
                scores.entropy[chunk] = mass_C.log() + torch.special.entr(logits_CV).sum(-1) / mass_C
            if grads is not None:
                logits_CV.scatter_add_(-1, ids_CK, (shares_CK * -mass_C.unsqueeze(-1)).to(logits_CV.dtype))
                mean_CD = _add_gradients(grads, chunk, logits_CV, mass_C, hidden_CD, weight_VD, temperature)
                if entropy and not rounds(hidden_CD):  # h . sum_v (p - q) W_v = E_p[logit] - E_q[logit]
                    scores.entropy[chunk] = -scores.logprobs[chunk] - (hidden_CD * mean_CD).sum(-1) / temperature
    return scores


def _evaluate(objective: Objective, scores: VocabularyScores, chunk: slice, logits_CV: Tensor) -> None:
    """Fill the scores of a chunk, and overwrite its logits with minus the gradient."""
    with torch.no_grad():
        part = objective.evaluate(chunk, logits_CV)
    for field in fields(VocabularyScores):
        getattr(scores, field.name)[chunk] = getattr(part, field.name)


def _score_chunk(
    scores: VocabularyScores, chunk: slice, logits_CV: Tensor, ids_CK: Tensor, shares_CK: Tensor
) -> Tensor:
    """Fill the scores of a chunk, overwrite its logits with exp(logit - highest), and return their sums, [C].

    (`softmax` would do it in one pass, but sums a long row with an error of 2e-5.)
    """
    chosen_CK = logits_CV.gather(-1, ids_CK)
    highest_C = logits_CV.amax(-1)
    mass_C = torch.zeros_like(highest_C)
    for tile in slices(logits_CV.shape[1], tile_width(logits_CV)):
        mass_C += logits_CV[:, tile].sub_(highest_C.unsqueeze(-1)).exp_().sum(-1)
    normaliser_C = highest_C + mass_C.log()
    scores.normaliser[chunk] = normaliser_C
    scores.logprobs[chunk] = (shares_CK * (chosen_CK - normaliser_C.unsqueeze(-1))).sum(-1)
    scores.best[chunk], scores.highest[chunk] = chosen_CK[:, 0] >= highest_C, highest_C
    return mass_C


def _add_gradients(
    grads: _Gradients,
    chunk: slice,
    excess_CV: Tensor,
    mass_C: Tensor,
    hidden_CD: Tensor,
    weight_VD: Tensor,
    temperature: float,
) -> Tensor:
    """Add the gradients of a chunk, whose logits have the gradient -coefficient (p - q); return (p - q) W, [C, D].

    Args:
        grads: accumulators.
        chunk: rows of the chunk.
        excess_CV: (p - q) * mass, or minus any other gradient of the logits, times mass.
        mass_C: divisor of the rows; the narrow factors of the products are divided instead of the rows.
        hidden_CD: hidden states of the chunk, in the precision of the products.
        weight_VD: weight of the head; tiles of it, not the whole, are widened for the product.
        temperature: the temperature that divided the logits.
    """
    scale_C1 = (-grads.coefficient_M[chunk] / temperature).unsqueeze(-1)
    mean_CD = hidden_CD.new_zeros(hidden_CD.shape, dtype=excess_CV.dtype)
    scaled_CD = hidden_CD * (scale_C1 / mass_C.unsqueeze(-1))
    scaled_CD = scaled_CD.to(hidden_CD.dtype) if rounds(hidden_CD) else scaled_CD
    whole = weight_VD.dtype == excess_CV.dtype
    for tile in slices(len(weight_VD), len(weight_VD) if whole else tiled_matmul.GPU_TILE):
        add_product(mean_CD, excess_CV[:, tile], weight_VD[tile].to(hidden_CD.dtype))
        if grads.weight_VD is not None:
            add_product(grads.weight_VD[tile], excess_CV[:, tile].t(), scaled_CD)
    mean_CD /= mass_C.unsqueeze(-1)
    grads.hidden_MD[chunk] = scale_C1 * mean_CD
    return mean_CD


def _needs_gradients(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
