"""Distillation through K sampled logits a token, as Gemma 3 was distilled (Gemma 3 report, section 2.2)."""

from typing import Literal

import torch
from torch import Tensor

Mode = Literal["gumbel_renorm", "multinomial_counts", "topk"]


def draw_targets(
    teacher_logprobs_TV: Tensor, k: int, mode: Mode, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw K vocabulary entries a token from the teacher, and the weight that each gets as the student's target.

    Args:
        teacher_logprobs_TV: log-probabilities of the teacher, [T, V].
        k: entries a token, at most V.
        mode: `gumbel_renorm` draws without replacement by probability (Gumbel top-k) and renormalises the teacher's
            probabilities over the draw: the literal recipe, which sharpens the head. `multinomial_counts` draws with
            replacement and weighs by counts / K: unbiased. `topk` takes the likeliest: biased, no noise.
        generator: source of randomness.

    Returns:
        ids [T, K] (with repeats in `multinomial_counts`) and weights [T, K], which sum to 1 for each token.
    """
    if mode == "multinomial_counts":
        ids_TK = torch.multinomial(teacher_logprobs_TV.exp(), k, replacement=True, generator=generator)
        return ids_TK, torch.full_like(ids_TK, 1.0 / k, dtype=teacher_logprobs_TV.dtype)
    scores_TV = teacher_logprobs_TV
    if mode == "gumbel_renorm":
        exponential_TV = torch.empty_like(scores_TV).exponential_(generator=generator)
        scores_TV = scores_TV - exponential_TV.log()  # -log of a unit exponential is a standard Gumbel variable
    ids_TK = scores_TV.topk(k, dim=-1).indices
    return ids_TK, teacher_logprobs_TV.gather(-1, ids_TK).softmax(dim=-1)


def sampled_cross_entropy(student_logits_TV: Tensor, ids_TK: Tensor, weights_TK: Tensor) -> Tensor:
    """Cross-entropy of the student to the sampled targets: -sum_k weight_k log p_student(id_k).

    The student's softmax runs over the whole vocabulary: one over the K entries alone would leave the others free.

    Args:
        student_logits_TV: logits of the student, [T, V].
        ids_TK: drawn entries, [T, K].
        weights_TK: their weights, [T, K].

    Returns:
        [T], in nats.
    """
    chosen_TK = student_logits_TV.gather(-1, ids_TK)
    normaliser_T1 = student_logits_TV.logsumexp(dim=-1, keepdim=True)
    return -(weights_TK * (chosen_TK - normaliser_T1)).sum(dim=-1)


def kl_divergence(teacher_logprobs_TV: Tensor, student_logits_TV: Tensor) -> Tensor:
    """KL(teacher || student) over the whole vocabulary, [T], in nats."""
    student_logprobs_TV = student_logits_TV.log_softmax(dim=-1)
    return (teacher_logprobs_TV.exp() * (teacher_logprobs_TV - student_logprobs_TV)).sum(dim=-1)
