"""What every local backend tells the fork server, and as whom it starts jails."""

import io
import os
import zipfile
from pathlib import Path

from gemsmith.sandboxes.code.backends.backend import Role

USERS: dict[Role, int] = {"candidate": 65533, "judge": 65532}
"""User ids that no system gives away; as root, jails are built by them."""
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
"""Not -I: it would ignore PYTHONHASHSEED. The environment is ours, and what is run is an archive."""
WORKER = "/sbx/worker.zip"
"""Where a jail with a root of its own has the archive."""
_CODE = Path(__file__).parents[1]
_PARTS = ("jail/zygote.py", "jail/runner.py", "jail/judge.py", "jail/seccomp.py", "jail/landlock_rules.py", "codec.py")
WARM = """
    abc array bisect cmath collections contextlib copy dataclasses datetime decimal enum fractions functools heapq io
    itertools json math numbers operator os queue random re statistics string struct sys textwrap threading time
    traceback types typing
"""
"""Imported once, before any job: what programs ask for most. Without hashlib: OpenSSL makes each job 0.2 ms longer."""


def jail_settings(role: Role, *, namespaces: bool, seccomp: bool = True, landlock: bool = False) -> dict[str, object]:
    """Settings for jail/zygote.py."""
    return {
        "role": role,
        "namespaces": namespaces,
        "seccomp": seccomp,
        "landlock": landlock,
        "warm": WARM.split(),
        "environment": ENVIRONMENT,
    }


def spare_user(role: Role) -> int | None:
    """The user that a jail is built by: a spare one where this process is root, else None: the same."""
    return USERS[role] if os.geteuid() == 0 and _exists(USERS[role]) else None


def _exists(user: int) -> bool:
    """Whether there is such a user: in a user namespace there may be none but root, who is an ordinary user outside."""
    ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return any(int(first) <= user < int(first) + int(count) for first, _, count in ranges)


def worker_archive() -> int:
    """A descriptor of the files that run inside a jail, as one archive that Python can run.

    It is handed over by descriptor: the jail's user need not be able to reach the folder of this project.
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
