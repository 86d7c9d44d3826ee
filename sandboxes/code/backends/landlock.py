"""Jails without namespaces, for machines that allow none: Landlock, seccomp and resource limits. Only when it is named.

Weaker than the others: a job may start no processes and has no scratch files; it can tell by stat which files exist,
and sees process numbers; and it shares its user id with this process unless that one is root.
"""

from gemsmith.sandboxes.code.backends.backend import Role
from gemsmith.sandboxes.code.backends.in_place import start_in_place
from gemsmith.sandboxes.code.backends.interpreter import Interpreter, find_interpreter
from gemsmith.sandboxes.code.backends.jail import Jail, JailError, Keeper
from gemsmith.sandboxes.code.backends.settings import spare_user
from gemsmith.sandboxes.code.jail import landlock_rules


class Landlock:
    """Jails by Landlock. Where this process is root, they are a spare user's."""

    name = "landlock"

    def __init__(self) -> None:
        self._interpreter: dict[int | None, Interpreter] = {}

    def start(self, role: Role, keeper: Keeper) -> Jail:
        """A new jail; see `Backend`."""
        if landlock_rules.abi() < 1:
            raise JailError("the kernel offers no Landlock: it is older than 5.13, or its lsm= leaves it out")
        user = spare_user(role)
        if user not in self._interpreter:
            self._interpreter[user] = find_interpreter(user)
        return start_in_place(role, keeper, self._interpreter[user], user, seccomp=True, landlock=True)
