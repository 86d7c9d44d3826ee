"""Attention over key intervals in plain torch, one block of queries at a time, where no kernel is compiled."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from gemsmith.policy.attention.intervals import Intervals

QUERIES_AT_ONCE = 512


def blockwise_attention(
    query_BHTD: Tensor, key_BGKD: Tensor, value_BGKD: Tensor, intervals: Intervals, scale: float, dropout: float = 0.0
) -> Tensor:
    """Compute attention of each query over its interval, [B, H, T, D]; differentiable.

    Memory is that of one block of queries, because the backward pass recomputes each block. Keys outside a block's
    intervals are not read.

    Args:
        query_BHTD: queries.
        key_BGKD: keys of G groups; H / G query heads share one.
        value_BGKD: values.
        intervals: the keys that each query attends to.
        scale: factor of the scores.
        dropout: share of the attention weights that is dropped.
    """
    if intervals.plain:
        return scaled_dot_product_attention(
            query_BHTD, key_BGKD, value_BGKD, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=True
        )
    blocks = []
    for begin in range(0, query_BHTD.shape[2], QUERIES_AT_ONCE):
        rows = slice(begin, begin + QUERIES_AT_ONCE)
        lo_BT, hi_BT = intervals.lo_BT[:, rows], intervals.hi_BT[:, rows]
        seen_BT = hi_BT > lo_BT
        if not bool(seen_BT.any()):
            blocks.append(torch.zeros_like(query_BHTD[:, :, rows]))
            continue
        keys = slice(int(lo_BT[seen_BT].min()), int(hi_BT.max()))
        inputs = query_BHTD[:, :, rows], key_BGKD[:, :, keys], value_BGKD[:, :, keys]
        part = Intervals(lo_BT - keys.start, hi_BT - keys.start)
        blocks.append(
            checkpoint(_block, *inputs, part, scale, dropout, use_reentrant=False, preserve_rng_state=dropout > 0)
        )
    return torch.cat(blocks, dim=2)


def _block(
    query_BHTD: Tensor, key_BGKD: Tensor, value_BGKD: Tensor, intervals: Intervals, scale: float, dropout: float
) -> Tensor:
    mask_B1TK = intervals.dense(key_BGKD.shape[2])
    sees_B1T1 = mask_B1TK.any(dim=-1, keepdim=True)
    out_BHTD = (
        scaled_dot_product_attention(  # a query that sees nothing looks at everything, and then its output is dropped
            query_BHTD,
            key_BGKD,
            value_BGKD,
            attn_mask=mask_B1TK | ~sees_B1T1,
            dropout_p=dropout,
            scale=scale,
            enable_gqa=True,
        )
    )
    return torch.where(sees_B1T1, out_BHTD, 0.0)
