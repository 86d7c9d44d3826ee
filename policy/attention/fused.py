"""Attention over key intervals by the compiled kernel (policy/attention/kernel), with its gradients."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gemsmith.policy.attention.intervals import Intervals

DTYPES = (torch.float32, torch.bfloat16)


def fused_attention(
    kernel: ModuleType, query_BHTD: Tensor, key_BGKD: Tensor, value_BGKD: Tensor, intervals: Intervals, scale: float
) -> Tensor:
    """Compute attention of each query over its interval, [B, H, T, D], in the inputs' dtype; differentiable once.

    Sums are float32 for every dtype. No tensor of T x K entries exists, keys outside the intervals are not read, and
    H / G query heads read the keys of their group in place.

    Args:
        kernel: the compiled module, from `gemsmith.policy.attention.build`.
        query_BHTD: queries, float32 or bfloat16, on the CPU.
        key_BGKD: keys of G groups.
        value_BGKD: values.
        intervals: the keys that each query attends to.
        scale: factor of the scores.
    """
    return _Fused.apply(query_BHTD, key_BGKD, value_BGKD, intervals.lo_BT, intervals.hi_BT, kernel, scale)


def refusal(kernel: ModuleType, query_BHTD: Tensor, key_BGKD: Tensor) -> str | None:
    """Return why the kernel does not support these tensors; None if it does."""
    width, panel = query_BHTD.shape[-1], kernel.panel()
    if query_BHTD.dtype not in DTYPES or key_BGKD.dtype != query_BHTD.dtype:
        return f"it takes float32 and bfloat16, and the queries are {query_BHTD.dtype}"
    if width % panel:
        return f"it takes head widths that are multiples of {panel}, and this one is {width}"
    return None


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        lo_BT: Tensor,
        hi_BT: Tensor,
        kernel: ModuleType,
        scale: float,
    ) -> Tensor:
        query, key, value = (_neighbours(tensor) for tensor in (query, key, value))
        out = _token_major(query)
        log_sum_BHT = torch.empty(query.shape[:3], dtype=torch.float32)
        numbers = [*_sizes(query, key, lo_BT, hi_BT), *_places(query, key, value, out), log_sum_BHT.data_ptr()]
        kernel.forward(numbers, scale, query.dtype == torch.bfloat16)
        ctx.save_for_backward(query, key, value, lo_BT, hi_BT, out, log_sum_BHT)
        ctx.kernel, ctx.scale = kernel, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, lo_BT, hi_BT, out, log_sum_BHT = ctx.saved_tensors
        grad = _neighbours(grad.to(query.dtype))
        grads = [_token_major(tensor) for tensor in (query, key, value)]
        numbers = _sizes(query, key, lo_BT, hi_BT)
        numbers += [*_places(query, key, value, out, grad), log_sum_BHT.data_ptr(), *_places(*grads)]
        ctx.kernel.backward(numbers, ctx.scale, query.dtype == torch.bfloat16)
        return *grads, None, None, None, None


def _neighbours(tensor: Tensor) -> Tensor:
    """Return a tensor whose last dimension is contiguous, as the kernel needs; other strides may be arbitrary."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _token_major(like_BHTD: Tensor) -> Tensor:
    """Return an empty [B, H, T, D] that lies in memory as [B, T, H, D], the layout that the output projection reads."""
    batch, heads, tokens, width = like_BHTD.shape
    return torch.empty(batch, tokens, heads, width, dtype=like_BHTD.dtype).transpose(1, 2)


def _sizes(query: Tensor, key: Tensor, lo_BT: Tensor, hi_BT: Tensor) -> list[int]:
    batch, heads, queries, width = query.shape
    groups, keys = key.shape[1:3]
    threads = torch.get_num_threads()
    return [batch, heads, groups, queries, keys, width, lo_BT.data_ptr(), hi_BT.data_ptr(), threads]


def _places(*tensors: Tensor) -> list[int]:
    return [number for tensor in tensors for number in (tensor.data_ptr(), *tensor.stride()[:3])]
