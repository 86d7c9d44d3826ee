"""Make `tests` and `benchmarks` importable by name without putting the repository's root on `sys.path`.

With the root there, `import rl` would find our folder and hide an import that lacks its `gemsmith.`.
"""

import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

for name in ("tests", "benchmarks"):
    if name not in sys.modules:
        spec = importlib.machinery.ModuleSpec(name, loader=None, is_package=True)
        spec.submodule_search_locations = [str(ROOT / name)]
        sys.modules[name] = importlib.util.module_from_spec(spec)

from tests.warm_python import WarmPython  # noqa: E402  # can be imported from here on


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """Run programs in processes of their own that need not import torch and the rest again."""
    python = WarmPython()
    yield python
    python.close()
