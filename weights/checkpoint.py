"""Checkpoint folders in the safetensors format: read in blocks of rows, written as a stream, put in place whole.

Neither reading nor writing holds more than a block of a tensor, so that arithmetic on checkpoints takes the same memory
for 270M parameters as for 27B.
"""

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from contracts.errors import UserError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
BLOCK_ELEMENTS = 1 << 23  # 64 MB in float64
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".part"}  # what is never copied along


@dataclass(frozen=True)
class StoredTensor:
    """What a checkpoint's header says of one tensor; `dtype` is the format's own name, such as BF16."""

    shape: tuple[int, ...]
    dtype: str
    bytes: int

    @property
    def floating(self) -> bool:
        """Whether arithmetic on it makes sense; integers and booleans are only compared."""
        return "F" in self.dtype


class Checkpoint:
    """A folder with one safetensors file or several with an index, open for reading; use it in a `with` statement.

    Raises UserError where the folder holds no such weights or a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tensors: dict[str, StoredTensor] = {}
        self._file_of: dict[str, Any] = {}
        self._open = ExitStack()
        try:
            for path in _weight_files(folder):
                self._add(path)
        except BaseException:
            self._open.close()
            raise

    def _add(self, path: Path) -> None:
        try:
            file = self._open.enter_context(safe_open(path, framework="pt"))
            header = _read_header(path)
        except (SafetensorError, OSError, ValueError, struct.error) as error:
            raise UserError(f"{path} cannot be read as safetensors ({error}): write the checkpoint again.") from error
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                self.tensors[name] = StoredTensor(tuple(entry["shape"]), entry["dtype"], end - begin)
                self._file_of[name] = file

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def blocks(self, name: str) -> Iterator[slice]:
        """Ranges of rows of a tensor, in order, each of at most about eight million elements."""
        shape = self.tensors[name].shape
        rows = shape[0] if shape else 1
        row_elements = max(1, torch.Size(shape[1:]).numel())
        step = max(1, BLOCK_ELEMENTS // row_elements)
        for start in range(0, rows, step):
            yield slice(start, min(rows, start + step))

    def read(self, name: str, rows: slice) -> Tensor:
        """Rows of a tensor as stored, flat."""
        file = self._file_of[name]
        if not self.tensors[name].shape:
            return file.get_tensor(name).reshape(-1)
        return file.get_slice(name)[rows].reshape(-1)


def write_checkpoint(out: Path, like: Checkpoint, block: Callable[[str, slice], Tensor]) -> None:
    """Write a folder with the tensors and dtypes of `like`, each block computed when its turn comes.

    The weights become one file; the other files of the folder (configuration, tokenizer) are copied. The folder appears
    whole or not at all; one that stood there before is replaced.

    Args:
        out: folder to write.
        like: checkpoint that gives names, shapes, dtypes and the other files.
        block: given a tensor's name and a range of its rows, their new values, flat, in any floating dtype.
    """
    # Wide elements first keeps every tensor's start aligned.
    names = sorted(like.tensors, key=lambda name: (-_element_bytes(like.tensors[name]), name))
    with whole_folder(out) as part:
        _copy_other_files(like.folder, part)
        with (part / WEIGHTS_FILE).open("wb") as file:
            file.write(_header_bytes(names, like.tensors))
            for name in names:
                for rows in like.blocks(name):
                    dtype = like.read(name, slice(rows.start, rows.start + 1)).dtype
                    values = block(name, rows).to(dtype).reshape(-1).contiguous()
                    file.write(values.view(torch.uint8).numpy().data)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `out` when the block ends well, with everything on disk before it does.

    Whatever is killed when, `out` is the old folder, the new one, or (for an instant, if there was an old one) absent.
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
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{index} is not an index of safetensors files: write the checkpoint again.") from error
        missing = [name for name in names if not (folder / name).exists()]
        if missing:
            raise UserError(f"{index} names {missing[0]}, which is not there: copy the missing file into {folder}.")
        return [folder / name for name in names]
    if (folder / WEIGHTS_FILE).exists():
        return [folder / WEIGHTS_FILE]
    raise UserError(f"no weights in {folder}: expected {WEIGHTS_FILE} or {INDEX_FILE}, as transformers writes them.")


def _read_header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length))


def _header_bytes(names: list[str], tensors: dict[str, StoredTensor]) -> bytes:
    """The format's start: eight bytes of length, then JSON padded with spaces to a multiple of eight."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        tensor = tensors[name]
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [end, end + tensor.bytes]}
        end += tensor.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _element_bytes(tensor: StoredTensor) -> int:
    return tensor.bytes // max(1, torch.Size(tensor.shape).numel())


def _copy_other_files(source: Path, target: Path) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix not in WEIGHT_SUFFIXES and path.name != INDEX_FILE:
            shutil.copyfile(path, target / path.name)
