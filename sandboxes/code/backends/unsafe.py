"""No sandbox: programs run among the other processes of this machine, with resource limits only."""

import os
import warnings

from gemsmith.sandboxes.code.backends.backend import Role, SandboxUnavailableError
from gemsmith.sandboxes.code.backends.in_place import start_in_place
from gemsmith.sandboxes.code.backends.interpreter import find_interpreter
from gemsmith.sandboxes.code.backends.jail import Jail, Keeper
from gemsmith.sandboxes.code.backends.settings import spare_user

PERMISSION = "GEMSMITH_ALLOW_UNSAFE_CODE"


class Unsafe:
    """No walls. For a machine that is itself a sandbox, and for showing what walls are good for.

    Raises:
        SandboxUnavailableError: the environment does not allow it.
    """

    name = "unsafe"

    def __init__(self) -> None:
        if os.environ.get(PERMISSION) != "1":
            raise SandboxUnavailableError(
                "the unsafe backend runs programs that a model wrote as your own user, with your files and your "
                f"network; set {PERMISSION}=1 if this machine may be lost"
            )
        warnings.warn(
            "programs are run with the unsafe backend: nothing keeps them from your files and your network",
            RuntimeWarning,
            stacklevel=3,
        )

    def start(self, role: Role, keeper: Keeper) -> Jail:
        """A new jail; see `Backend`. As root, it is at least another user."""
        user = spare_user(role)
        return start_in_place(role, keeper, find_interpreter(user), user, seccomp=False, landlock=False)
