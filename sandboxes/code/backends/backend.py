"""What a way to build a jail must offer, and the errors of jails."""

from typing import Literal, Protocol

from gemsmith.contracts.errors import RunError
from gemsmith.sandboxes.code.backends.jail import Jail, Keeper

Role = Literal["candidate", "judge"]


class SandboxUnavailableError(RunError):
    """A sandbox cannot be opened on this machine; the message names the cause and the ways out."""


class Backend(Protocol):
    """A way to build jails. Candidates and judges get jails of their own, with users of their own where possible."""

    name: str

    def start(self, role: Role, keeper: Keeper) -> Jail:
        """A new jail whose fork server has answered; `keeper` starts its processes.

        Raises:
            JailError: it did not start; the message says why.
        """
