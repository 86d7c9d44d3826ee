"""The attention implementation `gemsmith` for transformers: each layer takes the best path for its device.

| where                          | path                                                                            |
|--------------------------------|---------------------------------------------------------------------------------|
| GPU                            | FlexAttention over key intervals                                                |
| CPU, kernel compiled           | the kernel                                                                      |
| CPU, no kernel                 | torch's own up to 1024 tokens, block by block for longer ones, with one warning |
| attention dropout              | as without a kernel                                                             |
| decoding                       | torch's own, heads that share keys as queries of one head                       |
| images, custom masks           | torch's own with a dense mask                                                   |
"""

import warnings
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from gemsmith.policy.attention.blockwise import blockwise_attention
from gemsmith.policy.attention.build import load_kernel
from gemsmith.policy.attention.fused import fused_attention, refusal
from gemsmith.policy.attention.intervals import Intervals, intervals_or_mask

NAME = "gemsmith"
FEW_QUERIES = 8  # below, as in decoding, packing the keys would cost more than a row of a dense mask
SHORT = 1024 * 1024  # query-key pairs up to which torch's own attention with a dense mask is as good as any


def register() -> str:
    """Register `gemsmith` with transformers (repeated calls are harmless); return the name to load a model with."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, make_mask)
    return NAME


def implementation(asked: str) -> str:
    """Return transformers' name of a recipe's attention setting; `auto` and `fused` are `gemsmith`."""
    return register() if asked in ("auto", "fused") else asked


def make_mask(
    *,
    batch_size: int,
    q_length: int,
    kv_length: int,
    config: PreTrainedConfig | None = None,
    device: torch.device | str = "cpu",
    **rest: Any,
) -> Intervals | Tensor | None:
    """Return intervals if some path uses them, else sdpa's dense mask or None (transformers' mask interface)."""
    given = {"batch_size": batch_size, "q_length": q_length, "kv_length": kv_length, "device": device, **rest}
    dropout = getattr(config, "attention_dropout", 0.0)
    kernel = dropout == 0 and torch.device(device).type == "cpu" and load_kernel() is not None
    if q_length < FEW_QUERIES or (not kernel and q_length * kv_length <= SHORT):
        return sdpa_mask(**given)
    return intervals_or_mask(**given)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Intervals | Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Compute attention of [B, H, T, D] queries over [B, G, K, D] keys and values, [B, T, H, D] (transformers'
    interface).
    """
    if not isinstance(attention_mask, Intervals):
        if query.shape[2] == 1 and dropout == 0 and (attention_mask is None or attention_mask.shape[1] == 1):
            return _decode(query, key, value, attention_mask, scaling), None
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **rest)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attention_over(query, key, value, attention_mask, scale, dropout).transpose(1, 2), None


def _decode(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """Compute attention of one query per row, [B, 1, H, D], without copying the keys for every head that shares
    them.
    """
    batch, heads, _, width = query.shape
    query = query.reshape(batch, key.shape[1], -1, width)
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return out.reshape(batch, 1, heads, width)


def attention_over(
    query: Tensor, key: Tensor, value: Tensor, intervals: Intervals, scale: float, dropout: float = 0.0
) -> Tensor:
    """Compute attention over key intervals, [B, H, T, D], by the best path of the device."""
    if query.device.type != "cpu" and dropout == 0:
        from gemsmith.policy.attention.flex import flex_attention_over

        return flex_attention_over(query, key, value, intervals, scale)
    if dropout > 0:
        _warn_once(
            "attention dropout is above 0, which the fused kernel does not support: attention runs block by "
            "block in torch"
        )
        return blockwise_attention(query, key, value, intervals, scale, dropout)
    kernel = load_kernel()
    reason = "it is not compiled; run `gemsmith build`" if kernel is None else refusal(kernel, query, key)
    if kernel is None or reason is not None:
        _warn_once(
            f"the fused attention kernel is not used ({reason}); block by block in torch, it takes 2 to 5 times as long"
        )
        return blockwise_attention(query, key, value, intervals, scale)
    return fused_attention(kernel, query, key, value, intervals, scale)


@lru_cache
def _warn_once(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=2)
