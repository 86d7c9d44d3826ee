"""A backend without a sandbox: programs run among the other processes of this machine, with resource limits only."""

import os
import warnings

from gemsmith.sandboxes.code.backends.backend import Role, SandboxUnavailableError
from gemsmith.sandboxes.code.backends.in_place import start_in_place
from gemsmith.sandboxes.code.backends.interpreter import find_interpreter
from gemsmith.sandboxes.code.backends.jail import Jail, Keeper
from gemsmith.sandboxes.code.backends.settings import spare_user

PERMISSION = "GEMSMITH_ALLOW_UNSAFE_CODE"


class Unsafe:
    """A backend that isolates nothing: for a machine that is itself a sandbox, and for tests of the attacks.

    Raises:
        SandboxUnavailableError: the environment variable GEMSMITH_ALLOW_UNSAFE_CODE is not 1.
    """

    name = "unsafe"

    def __init__(self) -> None:
        if os.environ.get(PERMISSION) != "1":
            raise SandboxUnavailableError(
                "the backend unsafe runs programs that a model wrote as your own user, with access to your files and "
                f"your network; set {PERMISSION}=1 if this machine contains nothing that you could lose"
            )
        warnings.warn(
            "the backend unsafe is in use: programs that a model wrote have access to your files and your network",
            RuntimeWarning,
            stacklevel=3,
        )

    def start(self, role: Role, keeper: Keeper) -> Jail:
        """Start a jail and return it; see `Backend`. If this process is root, the jail runs as a spare user."""
        user = spare_user(role)
        return start_in_place(role, keeper, find_interpreter(user), user, seccomp=False, landlock=False)
