"""Peak memory of a piece of work, measured by the kernel of the operating system in a process of its own (Linux)."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def peak_of(work: Callable[[], object]) -> int:
    """Bytes that this process grew by at most while `work` ran; run something like it before, to load libraries."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    work()
    return max(_status("VmHWM") - before, 0)


def whole_peak() -> int:
    """Bytes that this process held at most since the peak was last forgotten."""
    return _status("VmHWM")


def in_own_process(module: str, *arguments: str, timeout: float = 900) -> int:
    """The number that `python -m module arguments` prints last."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return int(done.stdout.split()[-1])


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])
