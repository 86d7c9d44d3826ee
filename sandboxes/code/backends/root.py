"""What a jail's file system holds: an interpreter, its libraries, four devices, the worker's files, an empty /tmp."""

import os
from dataclasses import dataclass
from pathlib import Path

from gemsmith.sandboxes.code.backends.interpreter import Interpreter

DEVICES = ("null", "zero", "random", "urandom")
_LIBRARIES = ("/lib", "/lib64", "/lib32", "/usr/lib64", "/usr/lib32")


@dataclass(frozen=True)
class Root:
    """The parts of a jail's root, all read-only.

    Attributes:
        shown: folders and files of the host, under their own names.
        links: symbolic links and what they say.
        emptied: folders within the shown ones that appear empty.
    """

    shown: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    emptied: tuple[str, ...]


def jail_root(interpreter: Interpreter) -> Root:
    """The least that an interpreter needs to start."""
    shown = [interpreter.binary, *interpreter.folders]
    links = []
    for name in _LIBRARIES:
        if os.path.islink(name):
            links.append((name, os.readlink(name)))
        elif os.path.isdir(name):
            shown.append(name)
    machine = os.uname().machine
    multiarch = [f"/usr/lib/{folder}" for folder in (f"{machine}-linux-gnu", f"{machine}-linux-musl")]
    found = [folder for folder in multiarch if os.path.isdir(folder)]
    if not found and os.path.isdir("/usr/lib") and not os.path.isdir("/usr/lib64"):
        found = ["/usr/lib"]
    shown += found
    own = Path(interpreter.prefix) / "lib"
    if interpreter.prefix not in ("/usr", "/"):
        shown += [str(path) for path in sorted(own.glob("libpython3*.so*")) if path.is_file()]
    if os.path.isdir("/nix/store") and interpreter.binary.startswith("/nix/store"):
        shown.append("/nix/store")
    parents = [one for one in dict.fromkeys(shown) if not any(one.startswith(f"{other}/") for other in shown)]
    return Root(tuple(parents), tuple(links), interpreter.site)
