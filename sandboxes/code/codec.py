"""Encoding of plain data as bytes, decoding, and comparison of a value with untrusted bytes.

Standard library only, Python 3.9 and later, and no import of this project, because jails contain this file too. An
integer keeps its tag in front of its bytes, so that no decimal conversion is ever needed; lengths are four bytes. In
canonical form whole floats are integers, and members of sets and dictionaries are in the order of their encodings, so
that equal data has equal bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

DEEPEST = 200
LENGTH = struct.Struct(">I")
FLOAT = struct.Struct(">d")
COMPLEX = struct.Struct(">dd")
_SEQUENCES: dict[bytes, Callable[[list[Any]], Any]] = {b"l": list, b"t": tuple, b"S": set, b"Z": frozenset}


class CodecError(ValueError):
    """Error for a value that is not plain data, or bytes that do not encode a value."""


def encode(value: object, *, canonical: bool = False, drain: bool = False) -> bytes:
    """Return the bytes of a value.

    Args:
        value: None, bool, int, float, complex, str, bytes, bytearray, and lists, tuples, dictionaries and sets of
            these. A value of a subclass is encoded as its base type.
        canonical: use one encoding for equal values; decoding it may lose a dictionary's order, and that 1.0 was a
            float.
        drain: encode generators and other iterators as lists of their items.

    Raises:
        CodecError: the value is not plain data or is nested deeper than 200.
    """
    parts: list[bytes] = []
    _encode(value, parts.append, canonical, drain, 0)
    return b"".join(parts)


def decode(data: bytes) -> Any:
    """Return the value of an encoding.

    Raises:
        CodecError: the bytes do not encode a value.
    """
    try:
        value, end = _decode(data, 0, 0)
    except (struct.error, IndexError, UnicodeError, TypeError, MemoryError, OverflowError) as error:
        raise CodecError(str(error)) from None
    if end != len(data):
        raise CodecError("there is more than one value")
    return value


def _encode(value: Any, put: Callable[[bytes], None], canonical: bool, drain: bool, depth: int) -> None:
    if depth > DEEPEST:
        raise CodecError(f"nested deeper than {DEEPEST}")
    if value is None:
        put(b"N")
    elif value is True:
        put(b"T")
    elif value is False:
        put(b"F")
    elif isinstance(value, int) or (canonical and isinstance(value, float) and float.is_integer(value)):
        value = int.__index__(value) if isinstance(value, int) else int(float.__float__(value))
        body = value.to_bytes((value.bit_length() + 8) // 8, "big", signed=True)
        put(b"i" + LENGTH.pack(len(body)) + body)
    elif isinstance(value, str):
        body = str.encode(value, "utf-8", "surrogatepass")
        put(b"s" + LENGTH.pack(len(body)) + body)
    elif isinstance(value, float):
        put(b"f" + FLOAT.pack(value))
    elif isinstance(value, (list, tuple)):
        if isinstance(value, list):
            put(b"l" + LENGTH.pack(list.__len__(value)))
            members = list.__iter__(value)
        else:
            put(b"t" + LENGTH.pack(tuple.__len__(value)))
            members = tuple.__iter__(value)
        for member in members:
            _encode(member, put, canonical, drain, depth + 1)
    elif isinstance(value, dict):
        put(b"d" + LENGTH.pack(dict.__len__(value)))
        _encode_pairs(value, put, canonical, drain, depth + 1)
    elif isinstance(value, (set, frozenset)):
        put((b"S" if isinstance(value, set) else b"Z") + LENGTH.pack(len(value)))
        encoded = [_alone(member, canonical, drain, depth + 1) for member in value]
        put(b"".join(sorted(encoded)))
    elif isinstance(value, (bytes, bytearray)):
        put((b"b" if isinstance(value, bytes) else b"B") + LENGTH.pack(len(value)) + bytes(value))
    elif isinstance(value, complex):
        put(b"c" + COMPLEX.pack(value.real, value.imag))
    elif drain and hasattr(type(value), "__next__"):
        _encode(list(value), put, canonical, drain, depth)
    else:
        raise CodecError(f"{type(value).__name__} is not plain data")


def _encode_pairs(
    value: dict[Any, Any], put: Callable[[bytes], None], canonical: bool, drain: bool, depth: int
) -> None:
    if not canonical:
        for key, member in dict.items(value):
            _encode(key, put, canonical, drain, depth)
            _encode(member, put, canonical, drain, depth)
        return
    pairs = [
        (_alone(key, canonical, drain, depth), _alone(member, canonical, drain, depth))
        for key, member in dict.items(value)
    ]
    for encoded_key, encoded_member in sorted(pairs):
        put(encoded_key)
        put(encoded_member)


def _alone(value: object, canonical: bool, drain: bool, depth: int) -> bytes:
    parts: list[bytes] = []
    _encode(value, parts.append, canonical, drain, depth)
    return b"".join(parts)


def _decode(data: bytes, start: int, depth: int) -> tuple[Any, int]:
    """Return the value that starts at an offset, and the offset after it."""
    if depth > DEEPEST:
        raise CodecError(f"nested deeper than {DEEPEST}")
    tag = data[start : start + 1]
    start += 1
    if tag in (b"N", b"T", b"F"):
        return {b"N": None, b"T": True, b"F": False}[tag], start
    if tag == b"f":
        return FLOAT.unpack_from(data, start)[0], start + 8
    if tag == b"c":
        return complex(*COMPLEX.unpack_from(data, start)), start + 16
    (length,) = LENGTH.unpack_from(data, start)
    start += 4
    if length > len(data) - start:
        raise CodecError("cut off")
    if tag in (b"i", b"s", b"b", b"B"):
        end = start + length
        body = data[start:end]
        if tag == b"i":
            return int.from_bytes(body, "big", signed=True), end
        if tag == b"s":
            return body.decode("utf-8", "surrogatepass"), end
        return (body if tag == b"b" else bytearray(body)), end
    if tag == b"d":
        pairs = {}
        for _ in range(length):
            key, start = _decode(data, start, depth + 1)
            pairs[key], start = _decode(data, start, depth + 1)
        return pairs, start
    if tag not in _SEQUENCES:
        raise CodecError(f"no such tag: {tag!r}")
    members = []
    for _ in range(length):
        member, start = _decode(data, start, depth + 1)
        members.append(member)
    return _SEQUENCES[tag](members), start


def matches(expected: object, data: bytes, tolerance: float = 0.0) -> bool:
    """Return True if bytes from a jail are the canonical encoding of the expected value.

    Walks the expected value and stops at the first difference: the work is bounded by the expected value, and nothing
    is built or hashed from the untrusted bytes. Types must match, except int and float, which are equal if their values
    are; NaN equals NaN.

    Args:
        expected: plain data.
        data: arbitrary bytes.
        tolerance: allowed difference of numbers, absolutely, and as a factor of the expected one.
    """
    if encode(expected, canonical=True) == data:
        return True
    try:
        return _matches(expected, data, 0, tolerance) == len(data)
    except (struct.error, OverflowError):
        return False


def _matches(expected: Any, data: bytes, start: int, tolerance: float) -> int:
    """Return the end of the value that starts at an offset, if it matches; else -1."""
    tag = data[start : start + 1]
    if type(expected) in (int, float):
        return _matches_number(expected, data, start, tolerance)
    if isinstance(expected, (list, tuple, set, frozenset, dict)):
        members: list[Any]
        if isinstance(expected, dict):
            kind, length = b"d", len(expected)
            pairs = sorted(expected.items(), key=lambda pair: encode(pair[0], canonical=True))
            members = [part for pair in pairs for part in pair]
        elif isinstance(expected, (set, frozenset)):
            kind, length = (b"S" if isinstance(expected, set) else b"Z"), len(expected)
            members = sorted(expected, key=lambda member: encode(member, canonical=True))
        else:
            kind, length, members = ((b"l" if isinstance(expected, list) else b"t"), len(expected), list(expected))
        if tag != kind or LENGTH.unpack_from(data, start + 1)[0] != length:
            return -1
        start += 5
        for member in members:
            start = _matches(member, data, start, tolerance)
            if start < 0:
                return -1
        return start
    wanted = encode(expected, canonical=True)
    return start + len(wanted) if data.startswith(wanted, start) else -1


def _matches_number(expected: int | float, data: bytes, start: int, tolerance: float) -> int:
    tag = data[start : start + 1]
    found: int | float
    if tag == b"f":
        end = start + 9
        found = FLOAT.unpack_from(data, start + 1)[0]
    elif tag == b"i":
        (length,) = LENGTH.unpack_from(data, start + 1)
        end = start + 5 + length
        if end > len(data) or (length > 1024 and tolerance):
            return -1
        found = int.from_bytes(data[start + 5 : end], "big", signed=True)
    else:
        return -1
    if found == expected or (expected != expected and found != found):
        return end
    if not tolerance or math.isinf(found) or math.isinf(expected):
        return -1
    return end if abs(found - expected) <= tolerance + tolerance * abs(expected) else -1
