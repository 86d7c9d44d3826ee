"""The sampling distribution: temperature, then top-k, then top-p, in transformers' order."""

import torch
from torch import Tensor

_CANDIDATES = (256, 8192)  # enough for almost every nucleus, and far cheaper than sorting 262,144 entries
_TILE = 2048  # entries of the vocabulary that are looked at together: 128 rows of them stay in a core's cache


def choose(
    logits_BV: Tensor,
    uniform_B: Tensor | None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Sample one token per row; return it and its log-probability in nats, [B] both, under the sampling distribution.

    Args:
        logits_BV: the policy's logits.
        uniform_B: a number in [0, 1) per row, which alone determines its sample. Default: take the most likely token.
        temperature: as in `processed_logprobs`.
        top_k: as in `processed_logprobs`.
        top_p: as in `processed_logprobs`. Without top-k and top-p no tensor of the vocabulary's width is created.
    """
    if 0 < top_k < logits_BV.shape[-1] or top_p < 1.0:
        logprobs_BV = processed_logprobs(logits_BV, temperature, top_k, top_p)
        token_B = logprobs_BV.argmax(dim=-1) if uniform_B is None else draw(logprobs_BV, uniform_B)
        return token_B, _at(logprobs_BV, token_B)
    highest_B1, mass_BN = _tile_masses(logits_BV, temperature)
    token_B = (
        logits_BV.argmax(dim=-1)
        if uniform_B is None
        else _draw_by_tiles(logits_BV, temperature, highest_B1, mass_BN, uniform_B)
    )
    normaliser_B = highest_B1.squeeze(-1) + mass_BN.sum(dim=-1).log().float()
    return token_B, _at(logits_BV, token_B).float() / temperature - normaliser_B


def processed_logprobs(logits_BV: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Return normalised log-probabilities of the entries that may be sampled, [B, V], float32; -inf for the others.

    Args:
        logits_BV: the policy's logits.
        temperature: divides the logits.
        top_k: entries below the k-th most likely are dropped; 0 keeps all.
        top_p: the most likely entries that together reach this mass are kept (after top-k); 1 keeps all.
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
    """Sample one entry per row, [B]: the first whose cumulative probability exceeds the row's number in [0, 1).

    A row's sample depends on its own number alone, so that results do not depend on which rows are sampled together.
    """
    cumulative_BV = logprobs_BV.exp().cumsum_(dim=-1)
    return _first_above(cumulative_BV, uniform_B.unsqueeze(-1) * cumulative_BV[:, -1:]).squeeze(-1)


def _tile_masses(logits_BV: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the maximum of each row's logits / temperature, [B, 1], and sum exp(logit / temperature - max) of its N
    tiles.

    Every logit is read from memory once. The masses are float64, because sampling needs their cumulative sum.
    """
    tiles = range(0, logits_BV.shape[-1], _TILE)
    highest_BN = logits_BV.new_empty(len(logits_BV), len(tiles), dtype=torch.float32)
    mass_BN = torch.empty_like(highest_BN)
    for number, start in enumerate(tiles):
        tile_BK = _scaled(logits_BV[:, start : start + _TILE], temperature)
        highest_B1 = tile_BK.amax(dim=-1, keepdim=True).clamp_(min=torch.finfo(torch.float32).min)
        highest_BN[:, number] = highest_B1.squeeze(-1)
        mass_BN[:, number] = (tile_BK - highest_B1).exp_().sum(dim=-1)
    highest_B1 = highest_BN.amax(dim=-1, keepdim=True)
    return highest_B1, mass_BN.double() * (highest_BN - highest_B1).exp()


def _draw_by_tiles(
    logits_BV: Tensor, temperature: float, highest_B1: Tensor, mass_BN: Tensor, uniform_B: Tensor
) -> Tensor:
    """Sample the same entries as `draw`: first the tile, then the entry in it."""
    cumulative_BN = mass_BN.cumsum(dim=-1)
    threshold_B1 = uniform_B.unsqueeze(-1) * cumulative_BN[:, -1:]
    tile_B1 = _first_above(cumulative_BN, threshold_B1)
    rest_B1 = (threshold_B1 - (cumulative_BN - mass_BN).gather(-1, tile_B1)).clamp_(min=0)
    entry_BK = tile_B1 * _TILE + torch.arange(min(_TILE, logits_BV.shape[-1]), device=logits_BV.device)
    beyond_BK = entry_BK >= logits_BV.shape[-1]
    tile_BK = _scaled(logits_BV.gather(-1, entry_BK.clamp(max=logits_BV.shape[-1] - 1)), temperature)
    inside_BK = (tile_BK - highest_B1).exp_().masked_fill_(beyond_BK, 0).cumsum_(dim=-1)
    return entry_BK.gather(-1, _first_above(inside_BK, rest_B1.float())).squeeze(-1)


def _first_above(cumulative_BK: Tensor, threshold_B1: Tensor) -> Tensor:
    """Return the first entry of each row that exceeds its threshold, [B, 1]; rounding never selects an entry without
    mass.
    """
    total_B1 = cumulative_BK[:, -1:]
    below_total_B1 = torch.nextafter(total_B1, torch.zeros_like(total_B1))
    return torch.searchsorted(cumulative_BK, torch.minimum(threshold_B1, below_total_B1), right=True)


def _scaled(logits_BK: Tensor, temperature: float) -> Tensor:
    return logits_BK.float() if temperature == 1.0 else logits_BK.float() / temperature


def _at(values_BV: Tensor, index_B: Tensor) -> Tensor:
    return values_BV.gather(-1, index_B.unsqueeze(-1)).squeeze(-1)


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
