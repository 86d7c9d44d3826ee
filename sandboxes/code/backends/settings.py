"""Settings that all local backends share: the fork server's settings and files, its environment, and its user."""

import io
import os
import zipfile
from pathlib import Path

from gemsmith.sandboxes.code.backends.backend import Role

USERS: dict[Role, int] = {"candidate": 65533, "judge": 65532}
"""User ids that systems assign to nobody; if this process is root, jails are built as these users."""
# Fixed, so that no variable of this process reaches a program, and a program's results do not depend on the machine.
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
PYTHON = ("-s", "-S", "-B")
"""Options of the interpreter. -I would ignore PYTHONHASHSEED, and is not needed: the environment is fixed."""
WORKER = "/sbx/worker.zip"
"""Path of the worker archive in a jail that has its own root."""
_CODE = Path(__file__).parents[1]
_PARTS = ("jail/zygote.py", "jail/runner.py", "jail/judge.py", "jail/seccomp.py", "jail/landlock_rules.py", "codec.py")
WARM = """
    abc array bisect cmath collections contextlib copy dataclasses datetime decimal enum fractions functools heapq io
    itertools json math numbers operator os queue random re statistics string struct sys textwrap threading time
    traceback types typing
"""
"""Modules that programs import most; the fork server imports them once. OpenSSL, which hashlib imports, would make each
job 0.2 ms longer, so hashlib is not among them."""


def jail_settings(role: Role, *, namespaces: bool, seccomp: bool = True, landlock: bool = False) -> dict[str, object]:
    """Return the settings that a jail's fork server (jail/zygote.py) receives as its first message."""
    return {
        "role": role,
        "namespaces": namespaces,
        "seccomp": seccomp,
        "landlock": landlock,
        "warm": WARM.split(),
        "environment": ENVIRONMENT,
    }


def spare_user(role: Role) -> int | None:
    """Return the spare user id that builds a jail if this process is root; else None, for this process's user."""
    return USERS[role] if os.geteuid() == 0 and _exists(USERS[role]) else None


def _exists(user: int) -> bool:
    """Return whether a user id can be used here. In a user namespace, only the mapped ids can."""
    # Each line of uid_map is a range: first id inside, first id outside, number of ids. In a container whose root is an
    # ordinary user outside, often only root itself is mapped.
    ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return any(int(first) <= user < int(first) + int(count) for first, _, count in ranges)


def worker_archive() -> int:
    """Return a descriptor of an archive, which Python can run, of the files that run inside a jail.

    A jail gets the archive by descriptor, because its user may not have access to this project's folder.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("__main__.py", "import zygote\n\nzygote.main()\n")
        for part in _PARTS:
            archive.write(_CODE / part, Path(part).name)
    fd = os.memfd_create("worker", 0)
    os.write(fd, content.getvalue())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
