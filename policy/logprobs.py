"""Log-probabilities that a policy gives to completions, as training and evaluation compute them.

The vocabulary head runs at the positions that predict a completion token and at no other: with 262,144 entries it
dominates time and memory.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from policy.policy import evaluating


def completion_logits(
    model: nn.Module, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """Logits of the positions that predict a completion token; differentiable.

    Returns:
        [M, V] for the M completion tokens of all S sequences, row by row, in the model's dtype; and a mask [S, T] that
        is true up to each completion's end.
    """
    device = next(model.parameters()).device
    ids_SL, attended_SL, predicts_SL, mask_ST = _right_padded(prompts, completions, device)
    with _head_only_at(model, predicts_SL):
        return model(input_ids=ids_SL, attention_mask=attended_SL, use_cache=False).logits, mask_ST


def token_logprobs(
    model: nn.Module, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probability of each completion token after its prompt and the tokens before it; differentiable.

    Args:
        model: a causal language model, plain or wrapped (peft, DDP, DeepSpeed); its mode is left as it is.
        prompts: S token sequences of at least one token.
        completions: S token sequences; T is the longest one's length.
        temperature: divides the logits.

    Returns:
        Float32 log-probabilities in nats, [S, T], zero after a completion's end, and a mask that is true up to there.
    """
    logits_MV, mask_ST = completion_logits(model, prompts, completions)
    logprobs_ST = torch.zeros(mask_ST.shape, dtype=torch.float32, device=mask_ST.device)
    if not mask_ST.any():
        return logprobs_ST, mask_ST
    targets = [token for completion in completions for token in completion]
    targets_M1 = torch.tensor(targets, device=mask_ST.device).unsqueeze(-1)
    scaled_MV = logits_MV.float() if temperature == 1.0 else logits_MV.float() / temperature
    logprobs_M = scaled_MV.gather(-1, targets_M1).squeeze(-1) - scaled_MV.logsumexp(-1)
    return logprobs_ST.masked_scatter(mask_ST, logprobs_M), mask_ST


def sequence_logprobs(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    temperature: float = 1.0,
    batch: int | None = None,
    grad: bool = False,
) -> Tensor:
    """Log-probability of each whole completion, [S], in nats.

    Args:
        model: as in `token_logprobs`.
        prompts: S token sequences of at least one token.
        completions: S token sequences.
        temperature: divides the logits.
        batch: sequences computed at once; none: all of them.
        grad: keep what the backward pass needs, with the model in the mode it is in; otherwise no gradients and no
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


def _right_padded(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs without each sequence's last token, what is attended, where completion tokens are predicted; the mask."""
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
def _head_only_at(model: nn.Module, positions_SL: Tensor) -> Iterator[None]:
    """Inside, the model's vocabulary head sees only the hidden states at the marked positions: its logits are [M, V].

    A hook on the head rather than a call of the model's parts, so that the forward pass of whatever wraps the model is
    the one that runs (gradient synchronisation hangs on it).
    """
    hook = _vocabulary_head(model).register_forward_pre_hook(lambda _, hidden: (hidden[0][positions_SL], *hidden[1:]))
    try:
        yield
    finally:
        hook.remove()


def _vocabulary_head(model: Any) -> nn.Module:
    """The head inside whatever wraps the model (DDP and DeepSpeed keep it as `module`)."""
    while isinstance(getattr(model, "module", None), nn.Module):
        model = model.module
    return model.get_output_embeddings()
