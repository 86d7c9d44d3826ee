"""Resolve cpu.in into the lock files beside it, with the hashes of every wheel and source archive of each release.

Needs `uv` on the path. Versions already locked stay unless `--upgrade` is given. Three files come out: `build.lock`
(what builds the source archives), `compiled.lock` (what needs a C compiler; setup.sh can do without) and `cpu.lock`.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
BUILD = {"setuptools", "wheel"}
COMPILED = {"pycosat"}
BROUGHT_BY_TORCH = re.compile(r"^(torch|triton|nvidia-.*|cuda-.*)$")
LOCKS = ("build.lock", "compiled.lock", "cpu.lock")


def blocks(lock: str) -> dict[str, str]:
    """Split a lock into its entries, by package name: the requirement line and the hash lines below it."""
    found = re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(==.*(?:\n    .*)*)\n", lock, flags=re.MULTILINE)
    return {name: name + rest + "\n" for name, rest in found}


def lock_of(name: str) -> str:
    """Name of the lock file that a package belongs to."""
    if name in BUILD:
        return "build.lock"
    return "compiled.lock" if name in COMPILED else "cpu.lock"


def main(arguments: list[str]) -> None:
    """Write the three lock files."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.lock"
        whole.write_text("".join((HERE / name).read_text() for name in LOCKS if (HERE / name).exists()))
        command = ["uv", "pip", "compile", str(HERE / "cpu.in"), "--output-file", str(whole), "--generate-hashes"]
        command += ["--universal", "--python-version", "3.11", "--no-header", "--no-annotate", "--quiet", *arguments]
        subprocess.run(command, check=True)
        entries = {name: text for name, text in blocks(whole.read_text()).items() if not BROUGHT_BY_TORCH.match(name)}
    for lock in LOCKS:
        head = "# Written by `make lock` from cpu.in; install with --no-deps --require-hashes, as setup.sh does.\n"
        (HERE / lock).write_text(head + "".join(text for name, text in entries.items() if lock_of(name) == lock))
    print(f"{len(entries)} packages locked; torch and what only torch brings are left to TORCH_SPEC")


if __name__ == "__main__":
    main(sys.argv[1:])
