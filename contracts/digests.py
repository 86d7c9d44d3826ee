"""SHA-256 digests of files, with a cache of those of large files, so that unchanged weights are read once."""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from gemsmith.contracts.stage import write_atomically

CHUNK = 1 << 20
LARGE = 8 << 20  # bytes: a smaller file is hashed faster than its entry is found
THREADS = 4  # hashing leaves Python's lock, so that several files are read at once


def cache_folder() -> Path:
    """Return the user's folder for what can be computed again; it may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gemsmith"


def digest(path: Path, *, remembered: bool = False) -> str:
    """Return the SHA-256 digest of a file's content, as `sha256sum` prints it.

    Args:
        path: the file.
        remembered: accept the digest that an earlier call computed, if size, times and place of the file are the same.
            A large file's digest is stored in the cache by every call.
    """
    before = _state(path)
    large = before[0] >= LARGE
    entry = cache_folder() / "digests" / hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]
    if remembered and large:
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(entry.read_text())
            if content["state"] == before:
                return str(content["sha256"])
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    # A file that changed while it was read is not stored: its digest may be of neither content.
    if large and _state(path) == before:
        with suppress(OSError):  # the cache is a convenience: a full or read-only disk must not end a command
            write_atomically(entry, json.dumps({"state": before, "sha256": found.hexdigest()}) + "\n")
    return found.hexdigest()


def digests(paths: Iterable[Path], *, remembered: bool = False) -> dict[Path, str]:
    """Return the digests of several files, which are read at once, in the order of `paths`."""
    listed = list(paths)
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(listed, pool.map(lambda path: digest(path, remembered=remembered), listed), strict=True))


def content_digest(path: Path) -> str:
    """Return a SHA-256 digest that identifies the content of a file or a folder, and nothing else.

    A folder counts by the names and contents of its files. Hidden ones are left out: tools keep their caches there.
    """
    if not path.is_dir():
        return digest(path, remembered=True)
    files = {
        file.relative_to(path).as_posix(): file
        for file in sorted(path.rglob("*"))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    }
    found = digests(files.values(), remembered=True)
    lines = [f"{name} {found[file]}" for name, file in files.items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _state(path: Path) -> list[int]:
    """Return what changes with a file's content: the time of the last change (ctime) cannot be set back by a tool."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]
