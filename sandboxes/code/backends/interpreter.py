"""The Python interpreter that runs inside jails, and the folders that it needs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gemsmith.sandboxes.code.backends.jail import JailError

OLDEST = (3, 9)
# A candidate interpreter runs this program, which prints its version and its folders as JSON.
_QUESTION = (
    "import json, os, sys, sysconfig; p = sysconfig.get_paths(); print(json.dumps({'version': sys.version_info[:2], "
    "'binary': os.path.realpath(sys.executable), 'stdlib': p['stdlib'], 'platstdlib': p['platstdlib'], "
    "'dynload': sys.modules['_struct'].__file__ if '_struct' in sys.modules else '', 'prefix': sys.base_prefix, "
    "'site': [p['purelib'], p['platlib']]}))"
)


class InterpreterError(JailError):
    """No interpreter can run inside a jail; the message lists the ones tried, each with a reason."""


@dataclass(frozen=True)
class Interpreter:
    """A Python interpreter for jails.

    Attributes:
        binary: path of the executable, links resolved.
        version: major and minor version.
        folders: folders of the standard library.
        site: folders of installed packages inside `folders`; they are empty inside a jail.
        prefix: folder of the installation.
    """

    binary: str
    version: tuple[int, int]
    folders: tuple[str, ...]
    site: tuple[str, ...]
    prefix: str


def find_interpreter(user: int | None) -> Interpreter:
    """Return the first usable interpreter: the base of the running one, else one of the system's.

    Args:
        user: user id that must be able to run it; None: this process's.

    Raises:
        InterpreterError: no interpreter can be used.
    """
    # For example, a Python that was installed below root's home cannot be used by a spare user.
    reasons = []
    for path in _candidates():
        hidden = closed_to(path, user)
        if hidden is not None:
            reasons.append(f"{path} is below {hidden}, which the user of the jail cannot enter")
            continue
        try:
            return _asked(path, user)
        except InterpreterError as error:
            reasons.append(str(error))
    raise InterpreterError("found no Python that can run inside a jail: " + "; ".join(reasons or ["none is installed"]))


def closed_to(path: str, user: int | None) -> str | None:
    """Return the first folder or file on a path, links resolved, that a user cannot enter or read; None if none.

    For another user than this one, only the permissions of the owner and of others count, not those of a group: a spare
    user is in no group.
    """
    if user is None:
        return None if os.access(path, os.R_OK | os.X_OK) else path
    real = Path(os.path.realpath(path))
    for part in [*reversed(real.parents), real]:
        try:
            status = part.stat()
        except OSError:
            return str(part)
        wanted = 0o1 if part != real else 0o5
        if status.st_uid == user:
            wanted <<= 6
        if status.st_mode & wanted != wanted:
            return str(part)
    return None


def _candidates() -> Iterator[str]:
    # Outside a virtual environment first; then the system's, with the same minor version as the running one preferred.
    seen = set()
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable) or sys.executable)
    names = [base]
    for folder in ("/usr/bin", "/usr/local/bin"):
        minors = [sys.version_info.minor, *range(20, OLDEST[1] - 1, -1)]
        names += [f"{folder}/python3.{minor}" for minor in minors] + [f"{folder}/python3"]
    for name in names:
        real = os.path.realpath(name)
        if real not in seen and os.path.isfile(real):
            seen.add(real)
            yield real


def _asked(path: str, user: int | None) -> Interpreter:
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", _QUESTION],
            capture_output=True,
            text=True,
            timeout=20,
            env={"LANG": "C.UTF-8"},
            cwd="/",
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
        found = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InterpreterError(f"{path} does not run: {error}") from None
    except ValueError:
        raise InterpreterError(f"{path} does not run: {done.stderr.strip()[-200:]}") from None
    version = (found["version"][0], found["version"][1])
    if version < OLDEST:
        raise InterpreterError(f"{path} is Python {version[0]}.{version[1]}, older than 3.9")
    folders = tuple(dict.fromkeys(os.path.realpath(found[name]) for name in ("stdlib", "platstdlib")))
    # Programs get the standard library only. Folders of packages that are inside its folders must be emptied in a jail;
    # those elsewhere are not mounted in the first place.
    inside = [os.path.realpath(site) for site in found["site"]]
    inside += [f"{folder}/{name}" for folder in folders for name in ("site-packages", "dist-packages")]
    site = tuple(
        dict.fromkeys(
            folder for folder in inside if os.path.isdir(folder) and any(folder.startswith(f"{f}/") for f in folders)
        )
    )
    return Interpreter(found["binary"], version, folders, site, os.path.realpath(found["prefix"]))
