"""The distribution that tokens are drawn from: temperature, then top-k, then top-p, as transformers orders them."""

import torch
from torch import Tensor

_CANDIDATES = (256, 8192)  # enough for almost every nucleus, and far cheaper than sorting 262,144 entries


def processed_logprobs(logits_BV: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Normalised log-probabilities of what may be drawn, [B, V], float32; minus infinity for what may not.

    Args:
        logits_BV: the policy's logits.
        temperature: divides the logits.
        top_k: entries below the k-th likeliest are dropped; 0 keeps all.
        top_p: the likeliest entries that together reach this mass are kept (after top-k); 1 keeps all.
    """
    logits_BV = logits_BV.float()
    if temperature != 1.0:
        logits_BV = logits_BV / temperature
    if 0 < top_k < logits_BV.shape[-1]:
        least_B1 = logits_BV.topk(top_k, dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
    logprobs_BV = logits_BV.log_softmax(dim=-1)
    return logprobs_BV if top_p >= 1.0 else _nucleus(logprobs_BV, top_p)


def draw(logprobs_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """One entry of each row, [B]: the first whose cumulative probability exceeds the row's number in [0, 1).

    A row's draw depends on its own number alone, so that results do not depend on which rows are drawn together.
    """
    cumulative_BV = logprobs_BV.exp().cumsum_(dim=-1)
    total_B1 = cumulative_BV[:, -1:]
    below_total_B1 = torch.nextafter(total_B1, torch.zeros_like(total_B1))
    threshold_B1 = torch.minimum(uniform_B.unsqueeze(-1) * total_B1, below_total_B1)
    return torch.searchsorted(cumulative_BV, threshold_B1, right=True).squeeze(-1)


def _nucleus(logprobs_BV: Tensor, top_p: float) -> Tensor:
    vocabulary = logprobs_BV.shape[-1]
    for candidates in (*(k for k in _CANDIDATES if k < vocabulary), vocabulary):
        likeliest_BK, index_BK = logprobs_BV.topk(candidates, dim=-1)
        mass_BK = likeliest_BK.exp()
        keep_BK = mass_BK.cumsum(dim=-1) - mass_BK < top_p
        if not keep_BK[:, -1].any():
            break
    kept_BK = likeliest_BK.masked_fill(~keep_BK, -torch.inf)
    kept_BK = kept_BK - kept_BK.logsumexp(dim=-1, keepdim=True)
    return torch.full_like(logprobs_BV, -torch.inf).scatter_(-1, index_BK, kept_BK)
