"""Checkpoint folders in the safetensors format: read in blocks of rows, written as a stream, and replaced atomically.

Neither reading nor writing holds more than a block of a tensor, so that arithmetic on checkpoints takes the same memory
for 270M parameters as for 27B. Files are read, not mapped: pages of a mapped file stay in the process.
"""

import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import safe_open

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.reading import as_object, reading
from gemsmith.weights.ahead import computed_ahead
from gemsmith.weights.formats import FLOATING, STORED, Array, narrowed

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
BLOCK_ELEMENTS = 1 << 17  # 1 MB in float64: a block stays in the cache, and its memory is used again for the next
FLUSHED = 1 << 26  # bytes written between two calls of the disk
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".part"}  # what is never copied along


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's entry in the header of a checkpoint; `dtype` is the format's own name, such as BF16."""

    shape: tuple[int, ...]
    dtype: str
    bytes: int

    @property
    def floating(self) -> bool:
        """Return True if arithmetic on the tensor makes sense; integers, booleans and 8-bit codes are only compared."""
        return self.dtype in FLOATING

    @property
    def element_bytes(self) -> int:
        """Return the size of one element in bytes."""
        return STORED[self.dtype].itemsize


class Checkpoint:
    """An open folder with one safetensors file, or several with an index; use it in a `with` statement.

    Raises:
        UserError: the folder holds no such weights, or a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tensors: dict[str, StoredTensor] = {}
        self._place_of: dict[str, tuple[IO[bytes], int]] = {}
        self._open = ExitStack()
        try:
            for path in _weight_files(folder):
                self._add(path)
        except BaseException:
            self._open.close()
            raise

    def _add(self, path: Path) -> None:
        with reading(path, "safetensors", "write the checkpoint again"):
            with safe_open(path, framework="numpy"):  # checks that header and file fit
                file = self._open.enter_context(path.open("rb", buffering=0))
            (length,) = struct.unpack("<Q", file.read(8))
            header = as_object(json.loads(file.read(length)))
            for name, entry in header.items():
                if name == "__metadata__":
                    continue
                if (dtype := entry["dtype"]) not in STORED:
                    raise UserError(f"tensor {name} of {path} is {dtype}: expected one of {', '.join(STORED)}.")
                begin, end = entry["data_offsets"]
                self.tensors[name] = StoredTensor(tuple(entry["shape"]), dtype, end - begin)
                self._place_of[name] = file, 8 + length + begin

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def blocks(self, name: str) -> Iterator[slice]:
        """Yield ranges of rows of a tensor, in order, each of at most BLOCK_ELEMENTS elements or one row."""
        shape = self.tensors[name].shape
        rows = shape[0] if shape else 1
        step = max(1, BLOCK_ELEMENTS // max(1, _row_elements(shape)))
        for start in range(0, rows, step):
            yield slice(start, min(rows, start + step))

    def read(self, name: str, rows: slice) -> Array:
        """Return rows of a tensor as stored (`gemsmith.weights.formats`), flat; a scalar has one row.

        Raises:
            UserError: the file has become shorter since it was opened.
        """
        stored = self.tensors[name]
        row = _row_elements(stored.shape)
        values = np.empty((rows.stop - rows.start) * row, STORED[stored.dtype])
        left, (file, begin) = values.view(np.uint8).data, self._place_of[name]
        at = begin + rows.start * row * stored.element_bytes
        while left:
            count = os.preadv(file.fileno(), [left], at)
            if not count:
                raise UserError(
                    f"{file.name} ends within tensor {name}: it may have changed while it was read. Run the "
                    "command again."
                )
            left, at = left[count:], at + count
        return values


def write_checkpoint(out: Path, like: Checkpoint, block: Callable[[str, slice], Array]) -> None:
    """Write a folder with the tensors and dtypes of `like`, computing each block when it is needed.

    The weights become one file; the other files of the folder (configuration, tokenizer) are copied. The folder appears
    complete or not at all; an existing folder is replaced.

    Args:
        out: folder to write.
        like: checkpoint that gives names, shapes, dtypes and the other files.
        block: function of a tensor's name and a range of its rows that returns their new values, flat: as stored, or to
            be rounded. Threads call it for several blocks at once.
    """
    # Wide elements first keeps every tensor's start aligned.
    names = sorted(like.tensors, key=lambda name: (-like.tensors[name].element_bytes, name))

    def stored_block(at: tuple[str, slice]) -> Array:
        values, dtype = block(*at), like.tensors[at[0]].dtype
        return values if values.dtype == STORED[dtype] else narrowed(values, dtype)

    with whole_folder(out) as part:
        _copy_other_files(like.folder, part)
        with (part / WEIGHTS_FILE).open("wb") as file, ThreadPoolExecutor(1) as disk:
            file.write(_header_bytes(names, like.tensors))
            waiting, flushes = 0, []
            for stored in computed_ahead(stored_block, ((n, rows) for n in names for rows in like.blocks(n))):
                waiting += file.write(stored.view(np.uint8).data)
                if waiting >= FLUSHED:  # the disk writes while the next blocks are computed
                    flushes.append(disk.submit(os.fdatasync, file.fileno()))
                    waiting = 0
            for flush in flushes:
                flush.result()  # a disk that failed says so once, and here


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to fill; it replaces `out` when the block ends well, after everything is on disk.

    After a kill at any time, `out` is the old folder, the new one, or (for an instant, if there was an old one) absent.
    """
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    for path in [*part.rglob("*"), part]:
        _sync(path)
    if out.exists():
        old = out.with_name(out.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
        part.rename(out)
        shutil.rmtree(old)
    else:
        part.rename(out)
    _sync(out.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    if index.exists():
        with reading(index, "an index of safetensors files", "write the checkpoint again"):
            places = as_object(as_object(json.loads(index.read_text(encoding="utf-8")), ("weight_map",))["weight_map"])
            names = sorted({str(name) for name in places.values()})
        missing = [name for name in names if not (folder / name).exists()]
        if missing:
            raise UserError(f"{index} names {missing[0]}, which does not exist; copy the missing file into {folder}.")
        return [folder / name for name in names]
    if (folder / WEIGHTS_FILE).exists():
        return [folder / WEIGHTS_FILE]
    raise UserError(f"no weights in {folder}: expected {WEIGHTS_FILE} or {INDEX_FILE}, as transformers writes them.")


def _header_bytes(names: list[str], tensors: dict[str, StoredTensor]) -> bytes:
    """Return the start of the file: eight bytes of length, then JSON padded with spaces to a multiple of eight."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        tensor = tensors[name]
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [end, end + tensor.bytes]}
        end += tensor.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _row_elements(shape: tuple[int, ...]) -> int:
    return math.prod(shape[1:])


def _copy_other_files(source: Path, target: Path) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix not in WEIGHT_SUFFIXES and path.name != INDEX_FILE:
            shutil.copyfile(path, target / path.name)
