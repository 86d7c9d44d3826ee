"""The binary format of a teacher's sampled targets: packed rows of tokens in a shard with an index.

A token's entries are sorted by id. The format keeps the lower 16 bits of each id, and how many of the token's entries
have each value of the bits above; an entry thus takes 2 bytes instead of 4, without loss. Log-probabilities are
float16.
"""

import hashlib
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"gemsmith targets"
LOW = 1 << 16  # ids in one value of the bits above the 16 that are kept
LEAST_LOGPROB = float(np.finfo(np.float16).min)  # stands for log 0
INDEX = np.dtype([("key", "<u8", 2), ("at", "<u8"), ("entries", "<u4"), ("tokens", "<u4")])

Array = NDArray[Any]


@dataclass(frozen=True)
class Entries:
    """Targets of M tokens, the most likely entry of each first.

    Attributes:
        ids: [M, K] int64; a token with fewer entries than another repeats its first one.
        logprobs: [M, K] float32, in nats, of the teacher at its temperature, after rounding to float16.
        counts: [M, K] int64, how often each entry was sampled, 0 for repeated entries; None if entries have no counts.
    """

    ids: NDArray[np.int64]
    logprobs: NDArray[np.float32]
    counts: NDArray[np.int64] | None


def row_key(prompt: Sequence[int], completion: Sequence[int]) -> bytes:
    """Return the key of a row, 16 bytes: a hash of its token ids and of the start of its completion."""
    tokens = np.array([len(prompt), *prompt, *completion], dtype="<i4")
    return hashlib.blake2b(tokens.tobytes(), digest_size=16).digest()


def pack(ids: Array, logprobs: Array, vocabulary: int, counted: bool) -> tuple[bytes, int]:
    """Return one row's block, and its total number of entries.

    Args:
        ids: [M, K], with repeats only if `counted`.
        logprobs: [M, K], in nats; none is NaN.
        vocabulary: number of the tokenizer's entries, above every id.
        counted: store each id once, with its count.
    """
    order = np.argsort(ids, axis=1, kind="stable")
    ids = np.take_along_axis(ids, order, axis=1).astype(np.int64)
    scores = np.take_along_axis(logprobs, order, axis=1)
    first = np.ones(ids.shape, dtype=bool)
    if counted:
        first[:, 1:] = ids[:, 1:] != ids[:, :-1]
    token, _ = np.nonzero(first)
    kept, highs = ids[first], highs_of(vocabulary)
    above = np.bincount(token * highs + (kept >> 16), minlength=len(ids) * highs)
    parts = [above.astype("<u2"), (kept & (LOW - 1)).astype("<u2"), scores[first].clip(LEAST_LOGPROB, 0).astype("<f2")]
    if counted:
        starts = np.flatnonzero(first)  # each token begins with an entry of its own, so that no run leaves it
        parts.append(np.diff(starts, append=first.size).astype("<u2"))
    return b"".join(part.tobytes() for part in parts), len(kept)


def unpack(block: Array, tokens: int, entries: int, vocabulary: int, counted: bool) -> Entries:
    """Undo `pack` for bytes as uint8."""
    highs = highs_of(vocabulary)
    ends = np.cumsum([2 * tokens * highs, 2 * entries, 2 * entries, 2 * entries * counted])
    above = block[: ends[0]].view("<u2").reshape(tokens, highs).astype(np.int64)
    kept = np.repeat(np.tile(np.arange(highs) << 16, tokens), above.ravel()) + block[ends[0] : ends[1]].view("<u2")
    scores = block[ends[1] : ends[2]].view("<f2").astype(np.float32)
    each = above.sum(axis=1)
    width = int(each.max(initial=0))
    there = np.arange(width) < each[:, None]
    ids, logprobs = np.zeros(there.shape, dtype=np.int64), np.full(there.shape, -np.inf, dtype=np.float32)
    ids[there], logprobs[there] = kept, scores
    order = np.argsort(-logprobs, axis=1, kind="stable")
    ids, logprobs = np.take_along_axis(ids, order, axis=1), np.take_along_axis(logprobs, order, axis=1)
    there = np.take_along_axis(there, order, axis=1)
    counts = None
    if counted:
        counts = np.zeros(there.shape, dtype=np.int64)
        unsorted = np.zeros_like(counts)
        unsorted[np.arange(width) < each[:, None]] = block[ends[2] : ends[3]].view("<u2")
        counts = np.take_along_axis(unsorted, order, axis=1)
    return Entries(np.where(there, ids, ids[:, :1]), np.where(there, logprobs, logprobs[:, :1]), counts)


def highs_of(vocabulary: int) -> int:
    """Return the number of values that the bits of an id above the lower 16 can have."""
    return -(-vocabulary // LOW)


def index_bytes(keys: Sequence[bytes], at: Sequence[int], entries: Sequence[int], tokens: Sequence[int]) -> bytes:
    """Return the end of a shard: the positions of its rows."""
    index = np.zeros(len(keys), dtype=INDEX)
    index["key"] = np.frombuffer(b"".join(keys), dtype="<u8").reshape(-1, 2)
    index["at"], index["entries"], index["tokens"] = at, entries, tokens
    return index.tobytes()


class Shard:
    """One file of rows, mapped into memory: only the parts that are read are loaded."""

    def __init__(self, data: mmap.mmap, rows: int) -> None:
        """Create a shard from the checked bytes of a whole file."""
        self._bytes = np.frombuffer(data, dtype=np.uint8)
        self.index = np.frombuffer(data, dtype=INDEX, count=rows, offset=len(data) - rows * INDEX.itemsize)

    def row(self, number: int, vocabulary: int, counted: bool) -> Entries:
        """Return the entries of one row's tokens."""
        at, entries, tokens = (int(self.index[number][name]) for name in ("at", "entries", "tokens"))
        size = 2 * (tokens * highs_of(vocabulary) + entries * (2 + counted))
        return unpack(self._bytes[at : at + size], tokens, entries, vocabulary, counted)
