"""Building of the attention kernel: compiled with DeepSpeed's op builder at set-up, loaded without a compiler.

Nothing here imports torch or DeepSpeed before something is compiled, so that `gemsmith doctor` stays fast.
"""

import hashlib
import importlib.machinery
import importlib.util
import os
import platform
import shlex
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.policy.training.deepspeed import extension_folder, remove_dead_locks

SOURCES = Path(__file__).parent / "kernel"
# No -ffast-math: it would lose infinities, and flush small numbers to zero in the whole process.
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")


@dataclass(frozen=True)
class KernelState:
    """State of the kernel: whether it is available, and what to do if it is not."""

    name: str
    library: Path | None
    problem: str = ""


def kernel_name() -> str:
    """Return the name of the build; it depends on the source, the flags, torch, Python and the processor."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.read_bytes())
    for part in (*FLAGS, metadata.version("torch"), sysconfig.get_config_var("EXT_SUFFIX"), _processor()):
        digest.update(f"{part}\n".encode())
    return f"gemsmith_attention_{digest.hexdigest()[:12]}"


def kernel_state() -> KernelState:
    """Look for the compiled kernel of this source on this machine; nothing is compiled or loaded."""
    name = kernel_name()
    for library in (*extension_folder().glob(f"{name}/{name}.so"), *extension_folder().glob(f"*/{name}/{name}.so")):
        return KernelState(name, library)
    return KernelState(name, None, "not compiled")


@lru_cache(maxsize=1)
def load_kernel() -> ModuleType | None:
    """Return the compiled kernel; None if it is not compiled or does not load. Import torch before the call."""
    state = kernel_state()
    if state.library is None or "torch" not in sys.modules:
        return None
    loader = importlib.machinery.ExtensionFileLoader(state.name, str(state.library))
    spec = importlib.util.spec_from_loader(state.name, loader)
    assert spec is not None
    try:
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except ImportError:  # a build that was cut off while it wrote
        return None
    return module


def build_kernel(say: Callable[[str], None]) -> KernelState:
    """Compile the kernel unless it exists, and print how long it took.

    Raises:
        UserError: a compiler, ninja or DeepSpeed is missing, the cache folder is not writable, or compiling failed.
    """
    state = kernel_state()
    if state.library is not None:
        say(f"attention kernel: {state.name} is compiled already")
        return state
    _put_own_programs_on_the_path()
    _check_tools()
    folder = extension_folder()
    _check_writable(folder)
    for lock in remove_dead_locks(folder):
        say(f"attention kernel: removed {lock}, left by a build that was killed")
    begun = time.monotonic()
    try:
        with _quoted_torch_libraries():
            _op_builder(state.name).load(verbose=False)
    except (RuntimeError, ImportError, OSError) as error:
        reason = next((line for line in str(error).splitlines() if "error" in line.lower()), str(error).split("\n")[0])
        raise UserError(f"the attention kernel did not compile ({reason.strip()}); attention runs in torch") from error
    load_kernel.cache_clear()
    built = kernel_state()
    if built.library is None:
        raise UserError(
            f"the attention kernel was compiled, but {state.name} is not in {folder}: set TORCH_EXTENSIONS_DIR"
        )
    say(f"attention kernel: {state.name} compiled in {time.monotonic() - begun:.0f} s")
    return built


def _op_builder(name: str) -> Any:
    """Return DeepSpeed's builder of CPU operators, with our source and flags."""
    from deepspeed.ops.op_builder.cpu.builder import CPUOpBuilder

    class AttentionBuilder(CPUOpBuilder):  # type: ignore[misc]
        BUILD_VAR = "DS_BUILD_GEMSMITH_ATTENTION"
        NAME = name

        def __init__(self) -> None:
            super().__init__(name=self.NAME)

        def absolute_name(self) -> str:
            return self.NAME

        def sources(self) -> list[str]:
            return [str(SOURCES / "module.cpp")]

        def cxx_args(self) -> list[str]:
            return list(FLAGS)

    return AttentionBuilder()


@contextmanager
def _quoted_torch_libraries() -> Iterator[None]:
    """Quote the folder of torch's libraries, which torch writes unquoted into the linker's command.

    Without this, the kernel cannot be linked in an environment whose folder name contains a space.
    """
    from torch.utils import cpp_extension

    folder = cpp_extension.TORCH_LIB_PATH
    cpp_extension.TORCH_LIB_PATH = shlex.quote(folder)
    try:
        yield
    finally:
        cpp_extension.TORCH_LIB_PATH = folder


def _put_own_programs_on_the_path() -> None:
    """Put the environment's programs on the PATH: torch looks for ninja there, and the environment may not be
    activated.
    """
    own = str(Path(sys.executable).parent)
    paths = os.environ.get("PATH", "").split(os.pathsep)
    if own not in paths:
        os.environ["PATH"] = os.pathsep.join([own, *paths])


def _check_tools() -> None:
    if importlib.util.find_spec("deepspeed") is None:
        raise UserError(
            "DeepSpeed builds the attention kernel and is not installed: `pip install 'gemsmith[deepspeed]'`"
        )
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        raise UserError(f"no C++ compiler `{compiler}` for the attention kernel: `apt-get install g++`, or set CXX")
    if shutil.which("ninja") is None:
        raise UserError("no ninja for the attention kernel: `pip install ninja`, and put it on the PATH")


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".gemsmith-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"the attention kernel cannot be written to {folder} ({error.strerror}); set TORCH_EXTENSIONS_DIR to "
            "a folder "
            "that is writable"
        ) from error


def _processor() -> str:
    """Return the properties that `-march=native` depends on, because several machines may share the home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {flags}"
