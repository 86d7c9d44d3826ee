"""The contents of a jail's file system: an interpreter, its libraries, four devices, the worker's files, an empty /tmp.

The list depends on the interpreter and on the folders of the system's shared libraries.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from gemsmith.sandboxes.code.backends.interpreter import Interpreter

DEVICES = ("null", "zero", "random", "urandom")
_LIBRARIES = ("/lib", "/lib64", "/lib32", "/usr/lib64", "/usr/lib32")


@dataclass(frozen=True)
class Root:
    """The parts of a jail's root folder, all of them read-only.

    Attributes:
        shown: folders and files of the host that the jail contains under their own names.
        links: symbolic links, as pairs of a name and a target.
        emptied: folders inside the shown ones that are empty in the jail.
    """

    shown: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    emptied: tuple[str, ...]


def jail_root(interpreter: Interpreter) -> Root:
    """Return the least that an interpreter needs to start."""
    shown = [interpreter.binary, *interpreter.folders]
    links = []
    # On most systems /lib and its siblings are links into /usr, so the links are copied and their targets added below.
    for name in _LIBRARIES:
        if os.path.islink(name):
            links.append((name, os.readlink(name)))
        elif os.path.isdir(name):
            shown.append(name)
    # Debian keeps shared libraries in a folder for each architecture. /usr/lib as a whole, which has much more in it,
    # is shown only where there is no smaller folder.
    machine = os.uname().machine
    multiarch = [f"/usr/lib/{folder}" for folder in (f"{machine}-linux-gnu", f"{machine}-linux-musl")]
    found = [folder for folder in multiarch if os.path.isdir(folder)]
    if not found and os.path.isdir("/usr/lib") and not os.path.isdir("/usr/lib64"):
        found = ["/usr/lib"]
    shown += found
    # An interpreter outside /usr may have its own libpython, which the loader finds by the path of the executable.
    own = Path(interpreter.prefix) / "lib"
    if interpreter.prefix not in ("/usr", "/"):
        shown += [str(path) for path in sorted(own.glob("libpython3*.so*")) if path.is_file()]
    if os.path.isdir("/nix/store") and interpreter.binary.startswith("/nix/store"):
        shown.append("/nix/store")
    # A folder inside another shown folder is already there; mounting it again would fail on a read-only mount.
    parents = [one for one in dict.fromkeys(shown) if not any(one.startswith(f"{other}/") for other in shown)]
    return Root(tuple(parents), tuple(links), interpreter.site)
