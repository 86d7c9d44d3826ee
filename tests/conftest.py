"""Make `tests` and `benchmarks` importable by name without putting the repository's root on `sys.path`.

With the root there, `import rl` would find our folder and hide an import that lacks its `gemsmith.`.
"""

import gc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MANY_MODULES = 50
gc.disable()  # until all tests are imported: nothing that an import makes is garbage

for name in ("tests", "benchmarks"):
    if name not in sys.modules:
        spec = importlib.machinery.ModuleSpec(name, loader=None, is_package=True)
        spec.submodule_search_locations = [str(ROOT / name)]
        sys.modules[name] = importlib.util.module_from_spec(spec)

from tests.warm_python import WarmPython  # noqa: E402  # can be imported from here on


class Frozen:
    """The modules whose objects garbage collection passes over: every training collects, in 0.3 s with torch's."""

    modules = 0

    @classmethod
    def freeze(cls) -> None:
        """Leave out what there is by now, where many modules were imported since the last time."""
        if len(sys.modules) > cls.modules + MANY_MODULES:
            gc.freeze()
            cls.modules = len(sys.modules)


def pytest_collection_finish() -> None:
    Frozen.freeze()
    gc.enable()


def pytest_runtest_setup() -> None:
    Frozen.freeze()


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """Run programs in processes of their own that need not import torch and the rest again."""
    python = WarmPython()
    yield python
    python.close()
