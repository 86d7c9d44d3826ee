"""A folder of a teacher's sampled targets, opened for reading by any number of students at once."""

import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gemsmith.contracts.errors import UserError
from gemsmith.curation.teacher_store.manifest import damage, read_manifest
from gemsmith.curation.teacher_store.shard import Entries, Shard, row_key


class TeacherStore:
    """A complete store, open for reading; its shards are mapped into memory."""

    def __init__(self, folder: Path, mend: str = "run `gemsmith teacher-cache` on the folder again") -> None:
        """Open and check every shard.

        Args:
            folder: folder of the store.
            mend: how to write its targets again, for messages.

        Raises:
            UserError: the store is missing or unfinished, or a shard is missing, truncated or corrupted.
        """
        self.folder, manifest = folder, read_manifest(folder)
        self.about = manifest.about
        if not manifest.complete:
            there = sum(record.rows for record in manifest.shards)
            raise UserError(
                f"The store {folder} is not finished: it has {there} of {self.about.rows} rows. To continue, {mend}."
            )
        for record in manifest.shards:
            if (wrong := damage(folder, record)) is not None:
                raise UserError(
                    f"Shard {record.file} of the store {folder} {wrong}. The other shards are kept; to write it again, "
                    f"{mend}."
                )
        self._shards = [_opened(folder / record.file, record.rows) for record in manifest.shards]
        self._starts = np.cumsum([0, *(len(shard.index) for shard in self._shards)])
        keys = np.concatenate([shard.index["key"] for shard in self._shards])
        self._order = np.argsort(keys[:, 0], kind="stable")
        self._sorted, self._keys = keys[self._order, 0], keys

    def find(self, prompt: Sequence[int], completion: Sequence[int], number: int = -1) -> int | None:
        """Return the place of a row: `number` if its tokens are the same there, else where they are; None if
        nowhere.
        """
        key = np.frombuffer(row_key(prompt, completion), dtype="<u8")
        if 0 <= number < len(self._keys) and (self._keys[number] == key).all():
            return number
        for place in self._order[np.searchsorted(self._sorted, key[0]) :]:
            if self._keys[place, 0] != key[0]:
                break
            if self._keys[place, 1] == key[1]:
                return int(place)
        return None

    def row(self, place: int) -> Entries:
        """Return the targets of a row's completion tokens; `place` comes from `find`."""
        shard = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self._shards[shard].row(place - int(self._starts[shard]), self.about.vocabulary, self.about.counted)


def _opened(path: Path, rows: int) -> Shard:
    with path.open("rb") as file:
        return Shard(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), rows)
