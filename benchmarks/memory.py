"""Peak memory of a piece of work, measured by the kernel of the operating system in a process of its own (Linux)."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil


def peak_of(work: Callable[[], object]) -> int:
    """Bytes that this process and its children grew by at most while `work` ran.

    Each is taken at its own peak, and pages that they share count in each. Run something like `work` before, to load
    libraries.
    """
    before = _status("VmRSS")
    for process in _family():
        Path(f"/proc/{process}/clear_refs").write_text("5")  # forget the peak so far
    work()
    return max(_status("VmHWM") - before, 0)


def whole_peak() -> int:
    """Bytes that this process and its children held at most since the peak was last forgotten."""
    return _status("VmHWM")


def in_own_process(module: str, *arguments: str, timeout: float = 900) -> int:
    """Return the number that `python -m module arguments` prints last."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return int(done.stdout.split()[-1])


def _family() -> list[int]:
    process = psutil.Process()
    return [process.pid, *(child.pid for child in process.children(recursive=True))]


def _status(field: str) -> int:
    """Bytes, over this process and its children."""
    texts = [Path(f"/proc/{process}/status").read_text() for process in _family()]
    lines = [line for text in texts for line in text.splitlines() if line.startswith(f"{field}:")]
    return sum(1024 * int(line.split()[1]) for line in lines)
