"""Jails built by this project's launcher: the same namespaces and root as with bubblewrap, without that program."""

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
    """A backend that builds jails with unshare(2). If this process is root, a spare user builds them."""

    name = "unshare"

    def __init__(self) -> None:
        self._interpreter: dict[int | None, Interpreter] = {}

    def start(self, role: Role, keeper: Keeper) -> Jail:
        """Start a jail and return it; see `Backend`."""
        user = spare_user(role)
        if user not in self._interpreter:
            self._interpreter[user] = find_interpreter(user)
        interpreter = self._interpreter[user]
        root = jail_root(interpreter)
        archive = worker_archive()

        # The launcher forks and waits for its child, the fork server. It closes the descriptors in `close`, so that the
        # control socket hangs up when the fork server ends.
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
            # The source goes by command line, as the jail's user may not have access to this project's folder.
            command = [interpreter.binary, "-I", "-S", "-B", "-c", LAUNCHER.read_text(), json.dumps(plan)]
            return keeper.start(command, errors, [control, begun, archive], environment=ENVIRONMENT, user=user)

        try:
            return Jail(start, jail_settings(role, namespaces=True))
        finally:
            os.close(archive)
