"""Log-probabilities of completions under a policy, as training and evaluation compute them.

The vocabulary head runs only at the positions that predict a completion token, and creates no logits
(policy/head/vocabulary_head.py): with 262,144 entries it dominates time and memory.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from gemsmith.contracts.errors import UserError
from gemsmith.policy.head.vocabulary_head import Objective, Targets, VocabularyScores, logprobs, weighted_sum
from gemsmith.policy.policy import evaluating
from gemsmith.policy.quantised import seen_weight

Tokens = Sequence[Sequence[int]]


def token_logprobs(
    model: nn.Module, prompts: Tokens, completions: Tokens, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each completion token given its prompt and the tokens before it; differentiable.

    Args:
        model: a causal language model, plain or wrapped (peft, DDP, DeepSpeed); its mode does not change.
        prompts: S token sequences of at least one token.
        completions: S token sequences; T is the longest one's length.
        temperature: divides the logits.

    Returns:
        Float32 log-probabilities in nats, [S, T], zero after a completion's end, and a mask that is True up to there.
    """
    ids_SL, attended_SL, predicts_SL, mask_ST = right_padded(prompts, completions, _device(model))
    targets = Targets.given(_flat(completions, mask_ST.device))
    with instead_of_logits(model, predicts_SL, lambda hidden, head: logprobs(hidden, head, targets, temperature)):
        logprobs_M = model(input_ids=ids_SL, attention_mask=attended_SL, use_cache=False).logits
    logprobs_ST = torch.zeros(mask_ST.shape, dtype=logprobs_M.dtype, device=mask_ST.device)
    return logprobs_ST.masked_scatter(mask_ST, logprobs_M), mask_ST


def weighted_logprobs(
    model: nn.Module,
    prompts: Tokens,
    completions: Tokens,
    weight_S: Tensor,
    targets: Targets | Objective | None = None,
    entropy: bool = False,
    besides_S: Tensor | None = None,
    temperature: float = 1.0,
) -> tuple[Tensor, VocabularyScores]:
    """Return sum_s weight_s sum_t log p(targets of token t of completion s): a differentiable scalar, in nats.

    Training losses are made of this: with a trained head it costs a quarter less than `token_logprobs`.

    Args:
        model: as in `token_logprobs`.
        prompts: S token sequences of at least one token.
        completions: S token sequences, of M tokens together.
        weight_S: constant weight of each sequence.
        targets: targets of the M tokens, row by row. Default: the completions' own tokens.
        entropy: also compute the entropy.
        besides_S: a second weight of each sequence, for the completions' own tokens; their sum is added to the scalar.
            It needs another pass of the head, but none of the rest of the model.
        temperature: divides the logits of the completions' own tokens, which are the default targets and those of
            `besides_S`; the temperature that they were sampled at. Other targets are at temperature 1.

    Returns:
        The scalar, and the scores of the M tokens, without gradients.
    """
    device = _device(model)
    ids_SL, attended_SL, predicts_SL, _ = right_padded(prompts, completions, device)
    own = Targets.given(_flat(completions, device))
    counts_S = torch.tensor([len(completion) for completion in completions], device=device)
    weight_M = weight_S.to(device).repeat_interleave(counts_S)
    besides = None if besides_S is None else (own, besides_S.to(device).repeat_interleave(counts_S))
    inputs = {"input_ids": ids_SL, "attention_mask": attended_SL}
    scores_at = temperature if targets is None else 1.0
    return weighted_forward(
        model, predicts_SL, targets or own, weight_M, entropy, besides, (scores_at, temperature), **inputs
    )


def weighted_forward(
    model: nn.Module,
    positions_SL: Tensor,
    targets: Targets | Objective,
    weight_M: Tensor,
    entropy: bool = False,
    besides: tuple[Targets, Tensor] | None = None,
    temperatures: tuple[float, float] = (1.0, 1.0),
    **inputs: Any,
) -> tuple[Tensor, VocabularyScores]:
    """Run the model on `inputs`, with `head.weighted_sum` at the M marked positions instead of logits.

    `besides` are further targets and weights, whose sum is added to the scalar; the scores belong to the first targets.
    `temperatures` divide the logits, for the targets and for `besides`.
    """
    kept: list[VocabularyScores] = []

    def compute(hidden_MD: Tensor, weight_VD: Tensor) -> Tensor:
        total, scores = weighted_sum(hidden_MD, weight_VD, targets, weight_M, entropy, temperatures[0])
        kept.append(scores)
        if besides is None:
            return total
        return total + weighted_sum(hidden_MD, weight_VD, *besides, temperature=temperatures[1])[0]

    with instead_of_logits(model, positions_SL, compute):
        total = model(**inputs, use_cache=False).logits
    return total, kept[0]


def completion_hidden(model: nn.Module, prompts: Tokens, completions: Tokens) -> tuple[Tensor, Tensor]:
    """Return the hidden states that predict the M completion tokens, [M, D], and the vocabulary head's weight, [V,
    D].
    """
    ids_SL, attended_SL, predicts_SL, _ = right_padded(prompts, completions, _device(model))
    with instead_of_logits(model, predicts_SL, lambda hidden, head: hidden):
        hidden_MD = model(input_ids=ids_SL, attention_mask=attended_SL, use_cache=False).logits
    return hidden_MD, seen_weight(vocabulary_head(model))


def sequence_logprobs(
    model: nn.Module,
    prompts: Tokens,
    completions: Tokens,
    temperature: float = 1.0,
    batch: int | None = None,
    grad: bool = False,
) -> Tensor:
    """Return the log-probability of each whole completion, [S], in nats.

    Args:
        model: as in `token_logprobs`.
        prompts: S token sequences of at least one token.
        completions: S token sequences.
        temperature: divides the logits.
        batch: number of sequences computed at once. Default: all of them.
        grad: keep what the backward pass needs, with the model in its current mode; otherwise no gradients and no
            dropout.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(completions[i]))
    rows = len(order) if batch is None else batch
    sums = []
    with nullcontext() if grad else torch.no_grad(), nullcontext() if grad else evaluating(model):
        for start in range(0, len(order), max(rows, 1)):
            chunk = order[start : start + rows]
            logprobs_ST, _ = token_logprobs(
                model, [prompts[i] for i in chunk], [completions[i] for i in chunk], temperature
            )
            sums.append(logprobs_ST.sum(dim=1))
    if not sums:
        return torch.zeros(0, device=next(model.parameters()).device)
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(sums)[back.to(sums[0].device)]


def listed_logprobs(
    model: nn.Module, prompts: Tokens, completions: Tokens, temperature: float = 1.0, batch: int | None = None
) -> list[Tensor]:
    """Return the log-probability of each token of each completion, one [T] per completion, in nats, on the CPU.

    No gradients are computed.

    Args:
        model: as in `token_logprobs`.
        prompts: S token sequences of at least one token.
        completions: S token sequences.
        temperature: divides the logits.
        batch: number of sequences computed at once. Default: all of them.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(completions[i]))
    listed = [torch.zeros(0)] * len(order)
    rows = len(order) if batch is None else batch
    with torch.no_grad(), evaluating(model):
        for start in range(0, len(order), max(rows, 1)):
            chunk = order[start : start + rows]
            logprobs_ST, _ = token_logprobs(
                model, [prompts[i] for i in chunk], [completions[i] for i in chunk], temperature
            )
            for i, row_T in zip(chunk, logprobs_ST.cpu(), strict=True):
                listed[i] = row_T[: len(completions[i])].clone()
    return listed


def right_padded(prompts: Tokens, completions: Tokens, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the inputs without each sequence's last token, the attention mask, the predicting positions, and their
    mask.
    """
    lengths = [len(prompt) + len(completion) - 1 for prompt, completion in zip(prompts, completions, strict=True)]
    width = max([*lengths, 1])
    longest = max((len(completion) for completion in completions), default=0)
    ids_SL = torch.zeros(len(lengths), width, dtype=torch.long)
    attended_SL, predicts_SL = torch.zeros_like(ids_SL), torch.zeros_like(ids_SL, dtype=torch.bool)
    mask_ST = torch.zeros(len(lengths), longest, dtype=torch.bool)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        sequence = [*prompt, *completion][: max(lengths[row], 1)]
        ids_SL[row, : len(sequence)] = torch.tensor(sequence)
        attended_SL[row, : len(sequence)] = 1
        predicts_SL[row, len(prompt) - 1 : lengths[row]] = True
        mask_ST[row, : len(completion)] = True
    return ids_SL.to(device), attended_SL.to(device), predicts_SL.to(device), mask_ST.to(device)


@contextmanager
def instead_of_logits(
    model: nn.Module, positions_SL: Tensor, compute: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[None]:
    """Make the model's `logits` be `compute(hidden_MD, weight_VD)` of the M marked positions, inside the block.

    This replaces the head's own forward instead of calling the model's parts, so that the forward pass of any wrapper
    of the model still runs: DDP's gradient synchronisation depends on it, and under ZeRO-3 the head's hooks gather its
    weight around the call and around the backward pass of the result.
    """
    head: Any = vocabulary_head(model)
    before = head.__dict__.get("forward")
    head.forward = lambda hidden_SLD: compute(hidden_SLD[positions_SL], seen_weight(head))
    try:
        yield
    finally:
        if before is None:
            del head.forward
        else:
            head.forward = before


def vocabulary_head(model: Any) -> nn.Linear:
    """Return the head inside any wrapper of the model (DDP and DeepSpeed keep the model as `module`).

    Raises:
        UserError: the head does more than multiply: it has an adapter or a bias, or its logits are capped.
    """
    while isinstance(getattr(model, "module", None), nn.Module):
        model = model.module
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if cap is not None:
        raise UserError(
            f"The checkpoint's config caps its logits (final_logit_softcapping = {cap}), which Gemma 3 never does; "
            "set it to null in config.json, or use the checkpoint that Google released."
        )
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None:
        raise UserError(
            "The vocabulary head (lm_head) has an adapter or a bias, and is computed here from its plain weight alone: "
            "leave lm_head out of `lora.targets`."
        )
    return head


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _flat(completions: Tokens, device: torch.device) -> Tensor:
    return torch.tensor([token for completion in completions for token in completion], dtype=torch.long, device=device)
