"""Jails by this project's own launcher: the same namespaces and the same root as bubblewrap's, without bubblewrap."""

import json
import os
import subprocess
from pathlib import Path

from gemsmith.sandboxes.code.backends.backend import Role
from gemsmith.sandboxes.code.backends.interpreter import Interpreter, find_interpreter
from gemsmith.sandboxes.code.backends.jail import Jail, Keeper
from gemsmith.sandboxes.code.backends.root import DEVICES, jail_root
from gemsmith.sandboxes.code.backends.settings import (
    ENVIRONMENT,
    PYTHON,
    WORKER,
    jail_settings,
    spare_user,
    worker_archive,
)

LAUNCHER = Path(__file__).parents[1] / "jail" / "launcher.py"


class Unshare:
    """Jails by unshare(2). Where this process is root, they are built as a spare user."""

    name = "unshare"

    def __init__(self) -> None:
        self._interpreter: dict[int | None, Interpreter] = {}

    def start(self, role: Role, keeper: Keeper) -> Jail:
        """A new jail; see `Backend`."""
        user = spare_user(role)
        if user not in self._interpreter:
            self._interpreter[user] = find_interpreter(user)
        interpreter = self._interpreter[user]
        root = jail_root(interpreter)
        archive = worker_archive()

        def start(control: int, begun: int, errors: int) -> "subprocess.Popen[bytes]":
            plan = {
                "shown": root.shown,
                "links": root.links,
                "emptied": root.emptied,
                "devices": DEVICES,
                "archive": archive,
                "worker": WORKER,
                "close": [control, begun, archive],
                "command": [interpreter.binary, *PYTHON, WORKER, str(control), str(begun)],
                "environment": ENVIRONMENT,
            }
            command = [interpreter.binary, "-I", "-S", "-B", "-c", LAUNCHER.read_text(), json.dumps(plan)]
            return keeper.start(command, errors, [control, begun, archive], environment=ENVIRONMENT, user=user)

        try:
            return Jail(start, jail_settings(role, namespaces=True))
        finally:
            os.close(archive)
