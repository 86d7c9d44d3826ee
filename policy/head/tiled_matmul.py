"""Products with the head's weight, [V, D], a few hundred tokens and a tile of the vocabulary at a time.

Products of 16-bit tensors are accumulated in float32 and never rounded to 16 bits in between.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

# Elements of the buffer: 256 tokens of Gemma's vocabulary, 256 MB; fewer tokens make the products slower.
CHUNK = 2**26
# Vocabulary entries of one product on the CPU: [256, 2048] stays in the cache, 1.3 times faster than all at once.
CPU_TILE = 2048
GPU_TILE = 2**15
# Elements of a temporary beside the buffer. On the CPU two rows of Gemma's vocabulary, 2 MB, stay in the cache.
CPU_PART = 2**19
GPU_PART = 2**24


def chunk_logits(hidden_CD: Tensor, weight_VD: Tensor, out_CV: Tensor | None = None) -> Tensor:
    """Return the logits of a chunk of tokens, [C, V], in float32 (float64 for float64), never rounded to bfloat16."""
    if out_CV is None:
        out_CV = hidden_CD.new_empty(len(hidden_CD), len(weight_VD), dtype=widened(hidden_CD.dtype))
    for tile in slices(len(weight_VD), tile_width(hidden_CD)):
        out_CV[:, tile] = product(hidden_CD, weight_VD[tile].to(hidden_CD.dtype).t())
    return out_CV


def chunk_rows(vocabulary: int) -> int:
    """Return the number of tokens of one chunk."""
    return max(1, CHUNK // vocabulary)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b of two tensors of one dtype, accumulated in float32 (float64 for float64)."""
    if rounds(a):
        return torch.mm(a, b, out_dtype=torch.float32)
    dtype = widened(b.dtype)
    return torch.mm(a.to(dtype), b.to(dtype))


def add_product(into: Tensor, a: Tensor, b: Tensor) -> None:
    """Compute into += a @ b, with `a` in the precision of `into`, and `b` in that of the model."""
    if rounds(b):
        torch.addmm(into, a.to(b.dtype), b, out_dtype=torch.float32, out=into)
    else:
        into.addmm_(a, b.to(into.dtype))


def rounds(tensor: Tensor) -> bool:
    """Return True if products take this tensor in its own 16 bits: on a GPU; CPUs without such units are faster in
    float32.
    """
    return tensor.device.type == "cuda" and tensor.dtype in (torch.float16, torch.bfloat16)


def widened(dtype: torch.dtype) -> torch.dtype:
    """Convert to float32; float64 stays."""
    return torch.promote_types(dtype, torch.float32)


def row_parts(tensor_CV: Tensor) -> Iterator[slice]:
    """Yield a few rows of a chunk at a time, for code that needs temporaries of their size."""
    part = CPU_PART if tensor_CV.device.type == "cpu" else GPU_PART
    return slices(len(tensor_CV), max(1, part // tensor_CV.shape[1]))


def tile_width(tensor: Tensor) -> int:
    """Return the number of vocabulary entries of one product on the tensor's device."""
    return CPU_TILE if tensor.device.type == "cpu" else GPU_TILE


def slices(size: int, width: int) -> Iterator[slice]:
    """Yield consecutive slices of `width` covering range(size)."""
    return (slice(start, min(start + width, size)) for start in range(0, size, width))
