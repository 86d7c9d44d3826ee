"""The attacks in a process of its own: as an ordinary user, or in an outer jail."""

import json
import os
import secrets
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gemsmith.sandboxes.code.backends.interpreter import InterpreterError, find_interpreter

ROOT = Path(__file__).parents[4]
USER = 64_321  # belongs to nobody


def ordinary() -> list[str]:
    """The start of a command that runs as a user without rights; nothing where this process is such a user."""
    if os.getuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("no program setpriv, to become another user with")
    return [setpriv, "--reuid", str(USER), "--regid", str(USER), "--clear-groups"]


def trials(
    backend: str, modes: str, names: Sequence[str], jail: Sequence[str], limit: Callable[[], None] | None = None
) -> tuple[list[dict[str, Any]], str]:
    """The trials of the named attacks, and what went to standard error.

    Args:
        backend: of the sandbox.
        modes: with commas between them.
        names: of the attacks.
        jail: the command in front, that changes the user or puts walls around.
        limit: called in the new process first.
    """
    try:
        python = find_interpreter(USER if os.getuid() == 0 else None).binary
    except InterpreterError as error:
        pytest.skip(f"no interpreter that other users can read: {error}")
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), sysconfig.get_path("purelib")])
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "GEMSMITH_ALLOW_UNSAFE_CODE": "1",
        "GEMSMITH_TEST_SECRET": f"hidden-{secrets.token_hex(16)}",
    }
    seen = subprocess.run(
        [*ordinary(), python, "-c", "import gemsmith.sandboxes"], env=environment, capture_output=True
    )
    if seen.returncode:
        pytest.skip("other users cannot read this repository")
    program = [python, "-m", "tests.sandboxes.code.attacks.trial", "--backend", backend, "--modes", modes, *names]
    done = subprocess.run(
        [*ordinary(), *jail, *program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=limit,
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr
