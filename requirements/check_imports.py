"""Import every package named in cpu.in once, so that a broken combination is found at set-up and named.

A package that brings several top-level modules has each of them imported.
"""

import importlib
import importlib.metadata
import os
import re
import sys
import warnings
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
NO_MODULE_TO_IMPORT = {"ruff", "wheel", "setuptools", "ninja"}


def requested(file: Path) -> list[str]:
    """Names in a requirements input file, normalised (PEP 503), without extras, versions and markers."""
    lines = (line.split("#")[0].strip() for line in file.read_text().splitlines())
    return [re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", line)[0]).lower() for line in lines if line]


def modules() -> dict[str, list[str]]:
    """Top-level modules of each installed distribution, by its normalised name."""
    found: dict[str, list[str]] = {}
    for module, names in importlib.metadata.packages_distributions().items():
        for name in set(names):
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), []).append(module)
    return found


def main() -> int:
    """Import all; report each failure in one line; exit code 1 when there was one."""
    warnings.simplefilter("ignore")
    known, failures, imported = modules(), [], 0
    for name in requested(Path(__file__).with_name("cpu.in")):
        if name in NO_MODULE_TO_IMPORT:
            continue
        for module in [m for m in known.get(name, [name]) if m.isidentifier() and not m.startswith("_")]:
            try:
                importlib.import_module(module)
                imported += 1
            except Exception as error:  # whatever an import raises is the finding
                failures.append(f"{name}: import {module} failed: {type(error).__name__}: {error}")
    print("\n".join(failures) if failures else f"imported {imported} packages")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
