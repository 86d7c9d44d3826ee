"""Jails without namespaces: their fork server runs among the other processes of this machine."""

import os
import subprocess

from gemsmith.sandboxes.code.backends.backend import Role
from gemsmith.sandboxes.code.backends.interpreter import Interpreter
from gemsmith.sandboxes.code.backends.jail import Jail, Keeper
from gemsmith.sandboxes.code.backends.settings import ENVIRONMENT, PYTHON, jail_settings, worker_archive


def start_in_place(
    role: Role, keeper: Keeper, interpreter: Interpreter, user: int | None, *, seccomp: bool, landlock: bool
) -> Jail:
    """Start a fork server without namespaces and return its jail.

    Args:
        role: candidate or judge.
        keeper: starts the process.
        interpreter: Python of the fork server.
        user: user id that the fork server runs as; None: this process's.
        seccomp: confine jobs by a seccomp filter.
        landlock: confine jobs by Landlock. With neither of the two, only resource limits apply.

    Raises:
        JailError: the fork server did not start.
    """
    # The archive is in memory and is run by descriptor, so that `user` needs no access to this project's folder.
    archive = worker_archive()

    def start(control: int, begun: int, errors: int) -> "subprocess.Popen[bytes]":
        command = [interpreter.binary, *PYTHON, f"/proc/self/fd/{archive}", str(control), str(begun)]
        return keeper.start(command, errors, [control, begun, archive], environment=ENVIRONMENT, user=user)

    try:
        return Jail(start, jail_settings(role, namespaces=False, seccomp=seccomp, landlock=landlock))
    finally:
        os.close(archive)
