"""Attention masks as one interval of keys per query: causality, windows, packed documents and padding have this form.

transformers requests a mask once per forward pass and layer type. It gets two numbers per query instead of a matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import causal_mask_function, prepare_padding_mask, sdpa_mask


@dataclass(frozen=True)
class Intervals:
    """Key intervals: query t of row b attends to keys lo <= key < hi; to none if hi <= lo, and its output is then zero.

    `lo_BT` and `hi_BT` are int32. `plain` means that every query attends to all keys up to its own, and to no others.
    """

    lo_BT: Tensor
    hi_BT: Tensor
    plain: bool = False

    def contiguous(self) -> "Intervals":
        """Return the intervals in contiguous memory; `generate` asks every mask for this before a static cache."""
        return Intervals(self.lo_BT.contiguous(), self.hi_BT.contiguous(), self.plain)

    def dense(self, keys: int) -> Tensor:
        """Return the mask as a matrix, [B, 1, T, keys]; for tests, and for a few rows at a time."""
        key_K = torch.arange(keys, device=self.lo_BT.device)
        return ((key_K >= self.lo_BT[..., None]) & (key_K < self.hi_BT[..., None]))[:, None]


def intervals_or_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **rest: Any,
) -> Intervals | Tensor | None:
    """Return intervals if they can express the mask, else the dense mask for sdpa (transformers' mask interface).

    Positions in `mask_function` are absolute: query i is at `q_offset + i`, key j at `kv_offset + j`. Intervals cannot
    express image blocks, whose tokens attend to each other in both directions, custom masks, and padding with gaps.
    """
    dense = {
        "batch_size": batch_size,
        "q_length": q_length,
        "kv_length": kv_length,
        "q_offset": q_offset,
        "kv_offset": kv_offset,
        "mask_function": mask_function,
        "attention_mask": attention_mask,
        "local_size": local_size,
        "use_vmap": use_vmap,
        "device": device,
        **rest,
    }
    if use_vmap:
        return sdpa_mask(**dense)
    row_B1 = torch.arange(batch_size, device=device)[:, None]
    query_T = torch.arange(q_length, device=device) + q_offset
    if _looks_ahead(mask_function, row_B1, query_T):
        return sdpa_mask(**{**dense, "allow_is_causal_skip": False})
    begins_BT = _document_starts(mask_function, row_B1, query_T)
    end_BT = (query_T + 1).expand(batch_size, -1)
    lo_BT = begins_BT if local_size is None else torch.maximum(begins_BT, end_BT - local_size)
    hi_BT = end_BT
    valid_BK = prepare_padding_mask(attention_mask, kv_length, kv_offset)
    padded = valid_BK is not None and not bool(valid_BK.all())
    if padded:
        assert valid_BK is not None
        valid_BK = valid_BK.bool()
        if bool(((valid_BK[:, 1:] & ~valid_BK[:, :-1]).sum(-1) + valid_BK[:, 0] > 1).any()):
            return sdpa_mask(**dense)
        first_B1 = valid_BK.int().argmax(-1, keepdim=True)
        lo_BT = torch.maximum(lo_BT, first_B1)
        hi_BT = torch.minimum(hi_BT, first_B1 + valid_BK.sum(-1, keepdim=True))
        hi_BT = torch.where(valid_BK[:, query_T], hi_BT, 0)  # padding sees nothing
    whole = q_length == kv_length and (local_size is None or kv_length <= local_size)
    plain = whole and not padded and not bool((begins_BT > 0).any())
    lo_BT, hi_BT = (lo_BT - kv_offset).clamp(min=0), (hi_BT - kv_offset).clamp(max=kv_length)
    return Intervals(lo_BT.int().contiguous(), hi_BT.int().contiguous(), plain)


def _looks_ahead(mask_function: Callable[..., Any], row_B1: Tensor, query_T: Tensor) -> bool:
    """Return True if some query attends to the key after its own."""
    if len(query_T) < 2:
        return False
    return bool(torch.as_tensor(mask_function(row_B1, 0, query_T[:-1], query_T[1:])).any())


def _document_starts(mask_function: Callable[..., Any], row_B1: Tensor, query_T: Tensor) -> Tensor:
    """Return the first position of each query's document, [B, T]: the last query that does not see the one before
    it.
    """
    starts_BT = torch.zeros(len(row_B1), len(query_T), dtype=query_T.dtype, device=query_T.device)
    if len(query_T) > 1:
        joined = torch.as_tensor(mask_function(row_B1, 0, query_T[1:], query_T[:-1]), device=query_T.device)
        starts_BT[:, 1:] = torch.where(joined.expand(len(row_B1), -1), 0, query_T[1:])
    return starts_BT.cummax(dim=1).values
