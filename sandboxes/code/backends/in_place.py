"""Jails without namespaces: the fork server among the other processes of this machine."""

import os
import subprocess

from gemsmith.sandboxes.code.backends.backend import Role
from gemsmith.sandboxes.code.backends.interpreter import Interpreter
from gemsmith.sandboxes.code.backends.jail import Jail, Keeper
from gemsmith.sandboxes.code.backends.settings import ENVIRONMENT, PYTHON, jail_settings, worker_archive


def start_in_place(
    role: Role, keeper: Keeper, interpreter: Interpreter, user: int | None, *, seccomp: bool, landlock: bool
) -> Jail:
    """A fork server in no namespace, started as `user`; what holds its jobs is seccomp, Landlock, or nothing.

    Raises:
        JailError: it did not start.
    """
    archive = worker_archive()

    def start(control: int, begun: int, errors: int) -> "subprocess.Popen[bytes]":
        command = [interpreter.binary, *PYTHON, f"/proc/self/fd/{archive}", str(control), str(begun)]
        return keeper.start(command, errors, [control, begun, archive], environment=ENVIRONMENT, user=user)

    try:
        return Jail(start, jail_settings(role, namespaces=False, seccomp=seccomp, landlock=landlock))
    finally:
        os.close(archive)
