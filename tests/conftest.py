"""Make `tests` and `benchmarks` importable by name without putting the repository's root on `sys.path`.

With the root there, `import rl` would find our folder and hide an import that lacks its `gemsmith.`.
"""

import gc
import importlib.machinery
import importlib.util
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MANY_MODULES = 50
gc.disable()  # until all tests are imported: nothing that an import makes is garbage

# A shell starts a background program with Ctrl-C ignored, and `nohup` ignores SIGHUP. The programs that tests start
# would inherit this: they would never see the signals that tests send.
for number, ordinary in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, ordinary)

for name in ("tests", "benchmarks"):
    if name not in sys.modules:
        spec = importlib.machinery.ModuleSpec(name, loader=None, is_package=True)
        spec.submodule_search_locations = [str(ROOT / name)]
        sys.modules[name] = importlib.util.module_from_spec(spec)

from tests.warm_python import WarmPython  # noqa: E402  # can be imported from here on

LONG = (  # a minute or less each, the longest first, so that the processes that share the files end together
    "test_wheel.py",
    "reward_models/test_parallel_members.py",
    "rl/stages/test_processes.py",
    "rl/stages/test_resume.py",
    "sandboxes/code/test_attacks.py",
    "recipes/run/test_launch.py",
    "sandboxes/code/test_injection.py",
    "rl/stages/test_warp.py",
    "benchmarks/test_fidelity.py",
    "reward_models/test_warm.py",
    "sandboxes/mathematics/test_hostile.py",
    "rl/stages/test_keep_steps.py",
    "rl/stages/test_generate.py",
    "rl/rollouts/test_rollout.py",
    "policy/training/test_sequence_parallel.py",
    "recipes/run/test_runner.py",
    "rl/rewards/plugins/test_plugin.py",
    "export/test_export_stage.py",
    "export/test_gguf.py",
    "benchmarks/test_toys.py",
    "benchmarks/test_tiny_warp.py",
    "evals/test_evaluate_stage.py",
    "recipes/commands/test_cli.py",
    "recipes/commands/test_gold.py",
    "recipes/commands/test_reward.py",
    "recipes/commands/test_verify.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take long first."""
    place = {ROOT / "tests" / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path, len(LONG)))


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


@pytest.fixture(scope="module")
def shallow_tiny() -> Iterator[None]:
    """Give `tiny` two layers for a file; programs that its tests start must call `make_tiny_shallow` themselves."""
    from gemsmith.policy.loading import tiny
    from tests.shallow import make_tiny_shallow

    before = tiny.tiny_config
    make_tiny_shallow()
    yield
    tiny.tiny_config = before


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """Run programs in processes of their own that need not import torch and the rest again."""
    python = WarmPython()
    yield python
    python.close()
