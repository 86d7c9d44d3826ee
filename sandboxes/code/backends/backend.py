"""The interface of a local backend, and the error of a sandbox that cannot be opened."""

from typing import Literal, Protocol

from gemsmith.contracts.errors import RunError
from gemsmith.sandboxes.code.backends.jail import Jail, Keeper

Role = Literal["candidate", "judge"]


class SandboxUnavailableError(RunError):
    """A sandbox cannot be opened on this machine; the message has the cause and what you can do about it."""


class Backend(Protocol):
    """A way to build jails on this machine.

    Programs under test ("candidate") and trusted test code ("judge") get separate jails and, where possible, separate
    user ids, so that a program cannot reach the judge of its test.
    """

    name: str

    def start(self, role: Role, keeper: Keeper) -> Jail:
        """Start a jail, wait for the greeting of its fork server, and return it. `keeper` starts its processes.

        Raises:
            JailError: the jail did not start; the message has the reason.
        """
