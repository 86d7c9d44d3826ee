"""Keep the libraries quiet during a call, and restore the caller's environment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from gemsmith.recipes.run.console import QUIET, quieten


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Set the environment variables that keep the libraries quiet, and restore the old values at the end."""
    before = {name: os.environ.get(name) for name in QUIET}
    quieten()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
