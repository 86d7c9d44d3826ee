"""Attention over key intervals on a GPU: torch's FlexAttention with a block mask, compiled by torch.

Its masks are tested on the CPU; the GPU path itself has not been run by the authors.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from gemsmith.policy.attention.intervals import Intervals

_MASKS: WeakKeyDictionary[Tensor, BlockMask] = WeakKeyDictionary()  # one mask serves all layers of a forward pass


def flex_attention_over(
    query_BHTD: Tensor, key_BGKD: Tensor, value_BGKD: Tensor, intervals: Intervals, scale: float
) -> Tensor:
    """Compute attention of each query over its interval, [B, H, T, D]; blocks of keys outside it are skipped."""
    mask = _MASKS.get(intervals.lo_BT)
    if mask is None:
        mask = _MASKS[intervals.lo_BT] = block_mask(intervals, key_BGKD.shape[2])
    return _compiled()(query_BHTD, key_BGKD, value_BGKD, block_mask=mask, scale=scale, enable_gqa=True)


def block_mask(intervals: Intervals, keys: int) -> BlockMask:
    """Return FlexAttention's sparse form of the intervals, the same for all heads."""
    lo_BT, hi_BT = intervals.lo_BT, intervals.hi_BT

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key >= lo_BT[batch, query]) & (key < hi_BT[batch, query])

    rows, queries = lo_BT.shape
    return create_block_mask(sees, rows, None, queries, keys, device=str(lo_BT.device))


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention)
