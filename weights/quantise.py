"""Quantised weights: the numbers that training computes with and the bytes that an export writes, by the same rules.

Sources: Gemma's own quantisation for the per-channel int4 and for switched fp8 (Gemma 3 report, section 2.3), ggml for
Q4_0 and Q8_0. Every rule here is idempotent to the last bit: weights on a format's grid do not change. Therefore a
channel's step is kept in bfloat16 (Gemma's is float32): its rounding moves no weight by more than 0.2%.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gemsmith.weights.formats import Array

Format = Literal["int4_channel", "q4_0", "sfp8", "q8_0", "f16"]

BLOCK = 32  # neighbours in a row that share a step in Q4_0 and Q8_0
CHUNK = 1 << 22  # weights quantised at once
TIE = 1e-3  # of a step: nearer than that to the middle between two codes

FLOAT16_MOST = 65520.0  # is rounded to infinity, as is what is above
_STEPS_IN_LARGEST: dict[Format | None, int] = {"f16": 1, "q8_0": 127, "q4_0": 8}
SFP8_MAX = 1.875
SFP8_MIN = 1.25 * 2.0**-23


def quantised(weight: Tensor, format: Format) -> Tensor:
    """Return the weights rounded to the format, in their own shape and dtype; each row is a channel.

    Args:
        weight: [..., I]; I is the width that a layer sums over. For Q4_0 and Q8_0 a multiple of 32 (`fault_of_width`).
        format: one of the rules below.
    """
    rows = weight.detach().reshape(-1, weight.shape[-1])
    out = torch.empty_like(rows)
    height = max(1, CHUNK // max(1, rows.shape[-1]))
    for start in range(0, len(rows), height):
        out[start : start + height] = _RULES[format](rows[start : start + height].float()).to(out.dtype)
    return out.reshape(weight.shape)


def straight_through(weight: Tensor, format: Format) -> Tensor:
    """Return x + sg(Q(x) - x): quantised numbers whose gradient reaches the weights as if nothing had been rounded."""
    return _StraightThrough.apply(weight, format)


def ties_spread(weight: Tensor, format: Format, generator: torch.Generator) -> Tensor:
    """Return starting weights for training that round to the same codes, with none half-way between two codes.

    In a five-bit file (Q5_0) every other code is exactly half-way between two of Q4_0. The first step of a
    training, however small, would move all of these to another code at once, in the direction of one gradient. This
    function moves each of them to a random place between its value and its code, so that a step changes as many codes
    as it would for weights that were never rounded.

    Args:
        weight: [..., I].
        format: only Q4_0's steps have such a ratio to those of a common format; others do not change.
        generator: random generator on the weights' device.
    """
    if format != "q4_0":
        return weight.detach()
    blocks = weight.detach().reshape(-1, BLOCK)
    parts = [_ties_spread(part.float(), generator) for part in blocks.split(CHUNK // BLOCK)]
    return torch.cat(parts).to(weight.dtype).reshape(weight.shape)


def fault_of_width(width: int, format: Format) -> str | None:
    """Return why rows of this width cannot be stored, as the end of a sentence; None if they can."""
    if format in ("q4_0", "q8_0") and width % BLOCK:
        return f"is {width} wide, and {format} holds blocks of {BLOCK}: {width} is not a multiple of {BLOCK}"
    return None


def fault_of_size(weight: Tensor, format: Format | None) -> str | None:
    """Return why a format cannot store weights of this size, as the end of a sentence; None if it can.

    A step of Q4_0 is the largest weight / 8 and one of Q8_0 the largest / 127, each in float16. Other formats store
    finite numbers of any size.
    """
    largest = float(weight.detach().abs().max()) if weight.numel() else 0.0
    if not math.isfinite(largest):
        return "holds a weight that is NaN or infinite"
    most = FLOAT16_MOST * _STEPS_IN_LARGEST[format] if format in _STEPS_IN_LARGEST else math.inf
    if largest >= most:
        return f"holds a weight of magnitude {largest:.4g}, and {format} can only store numbers below {most:.4g}"
    return None


def int4_channel(weight_OI: Tensor) -> Tensor:
    """Round to int4 with one step per row, max |w| / 7: w -> step * clip(round(w / step), -8, 7)."""
    step_O1 = _channel_step(weight_OI, 7.0)
    return (weight_OI / _nonzero(step_O1)).round_().clamp_(-8, 7).mul_(step_O1)


def sfp8(weight_OI: Tensor) -> Tensor:
    """Round to switched fp8 with one scale per row, which brings its largest magnitude to 1.875."""
    scale_O1 = _channel_step(weight_OI, SFP8_MAX)
    return sfp8_nearest(weight_OI / _nonzero(scale_O1)).mul_(scale_O1)


def sfp8_nearest(values: Tensor) -> Tensor:
    """Return the nearest numbers of switched fp8, without a scale; ties go to the even one.

    The format has a sign, and 3 bits of mantissa from 2^-7 up (exponents -7 to 0), 2 below (exponents -23 to -8). It
    has no subnormal numbers, and one zero in place of 2^-23, so that the smallest number is 1.25 * 2^-23.
    """
    size = values.abs().clamp(max=SFP8_MAX)
    rounded = torch.where(size >= 2.0**-7, _rounded_mantissa(size, 3), _rounded_mantissa(size, 2))
    tiny = torch.where(size < SFP8_MIN / 2, 0.0, SFP8_MIN)
    return torch.where(size < SFP8_MIN, tiny, rounded).clamp_(max=SFP8_MAX).copysign(values)


def q4_0(weight_OI: Tensor) -> Tensor:
    """Round to ggml's Q4_0 and return the numbers: step * (code - 8)."""
    codes, step = q4_0_codes(weight_OI)
    return ((codes.float() - 8) * step.float()).reshape(weight_OI.shape)


def q4_0_codes(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes 0 to 15, uint8 [N, 32], and float16 steps, [N, 1], of the N blocks of 32.

    step = -(the element of largest magnitude, with its sign) / 8; code = clip(trunc(w / step + 8.5), 0, 15), with the
    step before it is rounded to float16.
    """
    blocks = weight_OI.reshape(-1, BLOCK)
    step = _q4_0_step(blocks)
    codes = (blocks * _inverse(step)).add_(8.5).trunc_().clamp_(0, 15)
    return codes.to(torch.uint8), step.to(torch.float16)


def _q4_0_step(blocks: Tensor) -> Tensor:
    return blocks.gather(1, blocks.abs().argmax(dim=1, keepdim=True)) / -8


def _ties_spread(blocks: Tensor, generator: torch.Generator) -> Tensor:
    tied = ((blocks * _inverse(_q4_0_step(blocks))).frac().abs() - 0.5).abs() < TIE
    rounded = q4_0(blocks)
    place = torch.rand(blocks.shape, generator=generator, device=blocks.device)
    return torch.where(tied, rounded + (blocks - rounded) * place, blocks)


def q8_0(weight_OI: Tensor) -> Tensor:
    """Round to ggml's Q8_0 and return the numbers: step * code."""
    codes, step = q8_0_codes(weight_OI)
    return (codes.float() * step.float()).reshape(weight_OI.shape)


def q8_0_codes(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes -127 to 127, int8 [N, 32], and float16 steps max |w| / 127, [N, 1]; halves round away from 0."""
    blocks = weight_OI.reshape(-1, BLOCK)
    step = blocks.abs().amax(dim=1, keepdim=True) / 127
    scaled = blocks * _inverse(step)
    size = scaled.abs()
    whole = size.floor()
    codes = (whole + (2 * (size - whole)).floor()).copysign(scaled)
    return codes.to(torch.int8), step.to(torch.float16)


def f16(weight_OI: Tensor) -> Tensor:
    """Round to float16."""
    return weight_OI.to(torch.float16).float()


def packed(weight: Tensor, format: Literal["q4_0", "q8_0", "f16"]) -> Array:
    """Return the bytes of a GGUF file: float16 numbers in the weights' shape, or uint8 rows of blocks.

    A block of Q4_0 is 18 bytes: the step, then codes 0 to 15 in the lower halves of 16 bytes and codes 16 to 31 in the
    upper ones. A block of Q8_0 is 34 bytes: the step, then 32 codes.
    """
    rows = weight.detach().float().reshape(-1, weight.shape[-1]).cpu()
    if format == "f16":
        return rows.to(torch.float16).reshape(weight.shape).numpy()
    parts = [_block_bytes(part, format) for part in rows.split(max(1, CHUNK // rows.shape[-1]))]
    return np.concatenate(parts).reshape(*weight.shape[:-1], -1)


class _StraightThrough(torch.autograd.Function):
    """Autograd function that returns the quantised numbers exactly; the sum x + (Q(x) - x) is only close to them."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, format: Format) -> Tensor:
        return quantised(weight, format)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def _channel_step(weight_OI: Tensor, top: float) -> Tensor:
    """Return max |w| / top of each row, [O, 1], with the 8 significant bits of a bfloat16."""
    return (weight_OI.abs().amax(dim=-1, keepdim=True) / top).to(torch.bfloat16).float()


def _nonzero(step: Tensor) -> Tensor:
    return torch.where(step == 0, 1.0, step)


def _inverse(step: Tensor) -> Tensor:
    """Return 1 / step, and 0 where float32 cannot represent it; ggml turns infinity into unspecified codes there.

    In float16 the step of such a block is 0, and so are its weights, whatever their codes.
    """
    return torch.where(step.abs() <= 2.0**-128, 0.0, 1 / step)


def _rounded_mantissa(size: Tensor, bits: int) -> Tensor:
    """Round float32 numbers >= 0 to that many bits of mantissa, ties to even; the exponent may go up by one."""
    dropped = 23 - bits
    pattern = size.contiguous().view(torch.int32)
    even = (pattern >> dropped) & 1
    return (((pattern + ((1 << (dropped - 1)) - 1) + even) >> dropped) << dropped).view(torch.float32)


def _block_bytes(rows: Tensor, format: Literal["q4_0", "q8_0"]) -> Array:
    if format == "q8_0":
        codes, step = q8_0_codes(rows)
        return np.concatenate([step.numpy().view(np.uint8), codes.numpy().view(np.uint8)], axis=1)
    codes, step = q4_0_codes(rows)
    low, high = codes.split(BLOCK // 2, dim=1)
    return np.concatenate([step.numpy().view(np.uint8), (low | (high << 4)).numpy()], axis=1)


_RULES: dict[Format, Callable[[Tensor], Tensor]] = {
    "int4_channel": int4_channel,
    "q4_0": q4_0,
    "sfp8": sfp8,
    "q8_0": q8_0,
    "f16": f16,
}
