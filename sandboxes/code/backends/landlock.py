"""Jails confined by Landlock, seccomp and resource limits, for machines that do not allow namespaces.

This backend is used only if it is named. It is weaker than those with namespaces: a job may start no processes and has
no scratch files, can find out by stat which files exist, can see process ids, and has the same user id as this process
unless this process is root.
"""

from gemsmith.sandboxes.code.backends.backend import Role
from gemsmith.sandboxes.code.backends.in_place import start_in_place
from gemsmith.sandboxes.code.backends.interpreter import Interpreter, find_interpreter
from gemsmith.sandboxes.code.backends.jail import Jail, JailError, Keeper
from gemsmith.sandboxes.code.backends.settings import spare_user
from gemsmith.sandboxes.code.jail import landlock_rules


class Landlock:
    """A backend that builds jails with Landlock. If this process is root, the jails run as a spare user."""

    name = "landlock"

    def __init__(self) -> None:
        self._interpreter: dict[int | None, Interpreter] = {}

    def start(self, role: Role, keeper: Keeper) -> Jail:
        """Start a jail and return it; see `Backend`."""
        if landlock_rules.abi() < 1:
            raise JailError(
                "was not started: the kernel has no Landlock, because it is older than 5.13 or its boot option `lsm=` "
                "does not list landlock"
            )
        user = spare_user(role)
        if user not in self._interpreter:
            self._interpreter[user] = find_interpreter(user)
        return start_in_place(role, keeper, self._interpreter[user], user, seccomp=True, landlock=True)
