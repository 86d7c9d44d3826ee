"""Writing of a teacher's targets into a store, resumable after an interruption.

The rows' lengths alone decide which rows share a shard, and a shard appears complete or not at all. A writing that was
interrupted at any point therefore continues, and gives the same bytes as an uninterrupted one.
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import write_atomically
from gemsmith.curation.teacher_store.manifest import (
    MANIFEST,
    About,
    Manifest,
    ShardRecord,
    damage,
    differs,
    read_manifest,
)
from gemsmith.curation.teacher_store.shard import LEAST_LOGPROB, MAGIC, Array, index_bytes, pack, row_key

SHARD_TOKENS = 8192  # 8 MB at K = 256: what a kill costs is at most so much of the teacher's time
ROUNDING = 1e-2  # nats above 0 that a log-softmax may come to in a narrow dtype
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Row = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt and of its completion."""
Ask = Callable[[range], tuple[Array, Array]]
"""Function that returns ids and log-probabilities, [M, K] each, of the M completion tokens of a few rows; repeatable.
"""


def data_hash(rows: Sequence[Row]) -> str:
    """Return a hash that identifies rows of token ids in their order."""
    digest = hashlib.sha256()
    for prompt, completion in rows:
        digest.update(row_key(prompt, completion))
    return digest.hexdigest()


def shard_rows(rows: Sequence[Row]) -> list[range]:
    """Return the rows of each shard: as many as have SHARD_TOKENS completion tokens, and at least one."""
    parts, start, tokens = [], 0, 0
    for number, (_, completion) in enumerate(rows):
        if tokens and tokens + len(completion) > SHARD_TOKENS:
            parts.append(range(start, number))
            start, tokens = number, 0
        tokens += len(completion)
    return [*parts, range(start, len(rows))]


def write_store(
    folder: Path, about: About, rows: Sequence[Row], ask: Ask, batch: int, on_progress: Callable[[int, int], None]
) -> None:
    """Write the targets of all rows, or of those that are still missing; existing shards are checked first.

    Args:
        folder: a new or empty folder, or one with an interrupted writing of the same targets.
        about: origin of the targets.
        rows: token ids of prompts and completions.
        ask: the teacher.
        batch: number of rows per call of the teacher, whose targets are in memory together.
        on_progress: function of the number of finished tokens and of all tokens.

    Raises:
        UserError: the folder holds something else or cannot be created, or the teacher's answer has no
            log-probabilities.
        RunError: the disk refused a write; complete shards stay.
    """
    make_folder(folder)
    total = sum(len(completion) for _, completion in rows)
    with _locked(folder):
        before = _unfinished_manifest(folder, about)
        whole = {record.file: record for record in before.shards if damage(folder, record) is None}
        names = [f"targets-{number:05}.bin" for number in range(len(shard_rows(rows)))]
        _check_places(folder, names)
        for stray in folder.glob("*.part"):
            stray.unlink()
        if before.complete and len(whole) == len(before.shards):
            return
        records: list[ShardRecord] = []
        _write_manifest(folder, before.model_copy(update={"complete": False, "shards": list(whole.values())}), 0)
        for name, part in zip(names, shard_rows(rows), strict=True):
            done = sum(record.tokens for record in records)
            on_progress(done, total)
            if name not in whole:
                with _disk(folder, len(whole)):
                    whole[name] = _write_shard(
                        folder / name, about, rows, part, ask, batch, _offset_progress(done, total, on_progress)
                    )
                found = [whole[name] for name in sorted(whole)]
                _write_manifest(folder, Manifest(complete=False, about=about, shards=found), len(found))
            records.append(whole[name])
        _write_manifest(folder, Manifest(complete=True, about=about, shards=records), len(records))
    on_progress(total, total)


def make_folder(folder: Path) -> None:
    """Return the folder of a store; create it if it does not exist.

    Raises:
        UserError: it cannot be created.
        RunError: the disk is full.
    """
    with _disk(folder, 0):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in FULL:
                raise
            reason = "it is a file" if folder.is_file() else error.strerror
            raise UserError(
                f"A store of targets cannot be written to {folder} ({reason}); name another folder."
            ) from error


def _check_places(folder: Path, names: Sequence[str]) -> None:
    """Raise if a folder exists where a file is to be written: the user may need its content.

    Raises:
        UserError: there is such a folder.
    """
    for path in (folder / name for name in [*names, *(stray.name for stray in folder.glob("*.part"))]):
        if path.is_dir():
            raise UserError(
                f"{path} is a folder, but a shard of targets belongs there; remove it and run the command again."
            )


def _offset_progress(done: int, total: int, on_progress: Callable[[int, int], None]) -> Callable[[int], None]:
    return lambda more: on_progress(done + more, total)


def _unfinished_manifest(folder: Path, about: About) -> Manifest:
    """Return the manifest that an earlier writing of the same targets has left."""
    if not (folder / MANIFEST).exists():
        foreign = [path.name for path in folder.iterdir() if path.suffix != ".part"]
        if foreign:
            raise UserError(
                f"{folder} is not empty and not a store of targets (it has {min(foreign)}); name a new folder."
            )
        return Manifest(complete=False, about=about, shards=[])
    found = read_manifest(folder)
    if difference := differs(found.about, about):
        raise UserError(f"{folder} holds other targets: {difference}. Name a new folder, or delete this one.")
    return found


def _write_shard(
    path: Path, about: About, rows: Sequence[Row], part: range, ask: Ask, batch: int, on_progress: Callable[[int], None]
) -> ShardRecord:
    """Write one shard under a temporary name, and rename it once it is on the disk."""
    keys, at, entries, tokens = [], [], [], []
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as raw:
            file = _Hashed(raw)
            file.write(MAGIC)
            for start in range(part.start, part.stop, batch):
                asked = range(start, min(start + batch, part.stop))
                for number, (ids, logprobs) in zip(asked, _by_row(ask(asked), rows, asked, about), strict=True):
                    block, count = pack(ids, logprobs, about.vocabulary, about.counted)
                    keys.append(row_key(*rows[number]))
                    at.append(file.size)
                    entries.append(count)
                    tokens.append(len(ids))
                    file.write(block)
                on_progress(sum(tokens))
            file.write(b"\0" * (-file.size % 8))
            file.write(index_bytes(keys, at, entries, tokens))
            raw.flush()
            os.fsync(raw.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return ShardRecord(
        file=path.name, rows=len(part), tokens=sum(tokens), bytes=file.size, sha256=file.digest.hexdigest()
    )


def _by_row(
    answer: tuple[Array, Array], rows: Sequence[Row], asked: range, about: About
) -> Iterator[tuple[Array, Array]]:
    """Yield the answer on several rows row by row, after checking it."""
    ids, logprobs = answer
    lengths = [len(rows[number][1]) for number in asked]
    expected = (sum(lengths), about.k)
    if ids.shape != expected or logprobs.shape != expected:
        raise UserError(
            f"The teacher {about.teacher_name} answered with {list(ids.shape)} ids and {list(logprobs.shape)} "
            f"log-probabilities on rows {asked.start} to {asked.stop - 1}, expected {list(expected)} of each."
        )
    faults = {
        "a log-probability that is not a number": np.isnan(logprobs).any(axis=1),
        "an id outside the vocabulary": ((ids < 0) | (ids >= about.vocabulary)).any(axis=1),
        "a log-probability above 0": (logprobs > ROUNDING).any(axis=1),
        "no entry with a probability above 0 for a token": (logprobs <= LEAST_LOGPROB).all(axis=1),
    }
    for fault, bad in faults.items():
        if bad.any():
            row = asked[int(np.searchsorted(np.cumsum(lengths), int(bad.argmax()), side="right"))]
            raise UserError(
                f"The teacher {about.teacher_name} gives {fault} in row {row} of the data; its weights are damaged, "
                "or its dtype is too narrow."
            )
    ends = np.cumsum(lengths)[:-1]
    return zip(np.split(ids, ends), np.split(logprobs, ends), strict=True)


class _Hashed:
    """A file that is written sequentially, with its hash."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.size, self.digest = file, 0, hashlib.sha256()

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self.size += len(content)
        self.digest.update(content)


def _write_manifest(folder: Path, manifest: Manifest, whole: int) -> None:
    with _disk(folder, whole):
        write_atomically(folder / MANIFEST, manifest.sealed().model_dump_json(indent=1) + "\n")


@contextmanager
def _disk(folder: Path, whole: int) -> Iterator[None]:
    """Turn an OSError into a RunError that says what was kept."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of a connection
            raise
        reason = "is full" if error.errno in FULL else f"refused ({error.strerror})"
        raise RunError(
            f"The disk of {folder} {reason}; {whole} complete shards of targets are kept. "
            f"{'Free some space' if error.errno in FULL else 'Fix the disk'} and run the command again; it continues."
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on the store."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UserError(
            f"Another process is writing targets into {folder}; wait for it, or name another folder."
        ) from error
    finally:
        os.close(handle)
