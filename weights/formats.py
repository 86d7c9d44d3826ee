"""Number formats of safetensors files as numpy arrays: widened for arithmetic, and rounded again.

numpy has no bfloat16. It is the upper half of float32, and its bits are kept.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

STORED: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(np.uint16),
    "F8_E4M3": np.dtype(np.uint8),
    "F8_E5M2": np.dtype(np.uint8),
    "F8_E8M0": np.dtype(np.uint8),
    "C64": np.dtype(np.complex64),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""numpy type of stored numbers, by the format's own name."""

FLOATING = ("F64", "F32", "F16", "BF16")
"""Formats on which arithmetic makes sense. 8-bit codes mean nothing without their scales."""

_NAN = np.uint16(0x7FC0)


def widened(stored: Array, dtype: str) -> Array:
    """Return stored numbers of a floating format as an array for arithmetic: float32 for 16 bits, else float64."""
    if dtype == "BF16":
        bits = stored.astype(np.uint32)
        bits <<= np.uint32(16)
        return bits.view(np.float32)
    return stored.astype(np.float32 if dtype == "F16" else np.float64)


def narrowed(values: Array, dtype: str) -> Array:
    """Return the nearest numbers of a floating format, as stored; ties go to the even one."""
    if dtype != "BF16":
        with np.errstate(over="ignore"):  # beyond the largest number is infinity, as torch has it
            return values.astype(STORED[dtype], copy=False)
    wide = values.astype(np.float32, copy=False)
    bits = wide.view(np.uint32)
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    return np.where(np.isnan(wide), _NAN, rounded.astype(np.uint16))
