"""The host's side of the attacks: a canary, listeners, and the processes that stand behind a sandbox."""

import os
import re
import secrets
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.sandboxes.code.attacks.attack import Places

PATIENCE = 3.0


def process_parents() -> dict[int, int]:
    """The parent of each process that there is now."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(words[1])
    return parents


def descendants(root: int | None = None) -> set[int]:
    """All processes below this one, zombies included."""
    parents = process_parents()
    found: set[int] = set()
    fresh = {os.getpid() if root is None else root}
    while fresh:
        fresh = {process for process, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def namespace(process: int | str) -> str:
    """The process namespace of a process, or nothing where it is gone or not ours to see."""
    try:
        return os.readlink(f"/proc/{process}/ns/pid")
    except OSError:
        return ""


def orphans() -> set[int]:
    """Processes in a namespace of their own whose parent is gone: nothing of a jail may end so."""
    own = namespace("self")
    adopted = [process for process, parent in process_parents().items() if parent == 1]
    return {process for process in adopted if namespace(process) not in ("", own)}


def open_descriptors() -> int:
    """Return the number of descriptors that this process holds."""
    return len(os.listdir("/proc/self/fd"))


def resident_bytes(process: int | str = "self") -> int:
    """Resident memory of a process; 0 when it is gone."""
    try:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) << 10 if found else 0


class Host:
    """A canary that anyone may read and write, listeners that anyone may reach, and a count of processes."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="canary-")
        os.chmod(self._folder.name, 0o777)
        self._canary = Path(self._folder.name) / "canary"
        self._canary.write_text("alive")
        self._canary.chmod(0o666)
        abstract = f"gemsmith-{secrets.token_hex(8)}"
        self._stream = socket.create_server(("127.0.0.1", 0))
        self.places = Places(str(self._canary), self._stream.getsockname()[1], abstract)
        self._datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagram.bind(("127.0.0.1", self.places.port))
        self._unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._unix.bind("\0" + abstract)
        self._unix.listen(8)
        self.hits = 0
        for listener in (self._stream, self._datagram, self._unix):
            threading.Thread(target=self._listen, args=(listener,), daemon=True).start()
        self._orphans = orphans()
        self._processes: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for listener in (self._stream, self._datagram, self._unix):
            listener.close()
        self._folder.cleanup()

    def settle(self) -> None:
        """Take the processes that there are now as those that belong to an idle sandbox."""
        self._processes = len(descendants())

    def problems(self) -> list[str]:
        """Return what is not as it must be between two jobs."""
        found = []
        if self.hits:
            found.append(f"{self.hits} connections to the listeners")
            self.hits = 0
        status = self._canary.stat()
        if self._canary.read_text() != "alive" or status.st_nlink != 1 or status.st_mode & 0o777 != 0o666:
            found.append("the canary was touched")
        if len(os.listdir(self._folder.name)) != 1:
            found.append("files were put beside the canary")
        survivors = self.survivors()
        if survivors:
            found.append(f"{survivors} survivors")
        return found

    def survivors(self) -> int:
        """Processes that are more than an idle sandbox has, after some patience."""
        deadline = time.monotonic() + PATIENCE
        while True:
            count = len(descendants()) - (self._processes or 0)
            lost = orphans() - self._orphans
            if (count <= 0 or self._processes is None) and not lost:
                return 0
            if time.monotonic() > deadline:
                self._orphans |= lost
                return max(count, 0) + len(lost)
            time.sleep(0.01)

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                if listener.type == socket.SOCK_DGRAM:
                    listener.recvfrom(100)
                else:
                    listener.accept()[0].close()
            except OSError:
                return
            self.hits += 1
