"""DeepSpeed's configuration from the recipe's, its environment in one process, and build locks that nobody holds."""

import os
import socket
from pathlib import Path
from typing import Any

from policy.config import DeepSpeedConfig


def deepspeed_json(config: DeepSpeedConfig) -> dict[str, Any]:
    """The dictionary that transformers' `TrainingArguments(deepspeed=...)` takes; "auto" is filled in by transformers.

    The optimiser stays torch's AdamW, also when its state is offloaded, so that no operator has to be compiled.
    """
    zero: dict[str, Any] = {"stage": config.zero}
    if config.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    if config.zero == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "steps_per_print": 1_000_000_000,
    }


def prepare_environment() -> None:
    """Set what one DeepSpeed process needs when no launcher set it; without these variables it asks for mpi4py."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in alone.items():
        os.environ.setdefault(name, value)


def remove_dead_locks(folder: Path) -> list[Path]:
    """Remove `lock` files of extension builds under `folder` that no living process holds open; return them.

    torch's builder creates the file, keeps it open while it compiles, and waits for ever for one that exists. A build
    that was killed leaves its lock behind.
    """
    locks = [path for path in folder.glob("**/lock") if path.is_file()]
    held = _open_files() if locks else set()
    dead = [path for path in locks if path.resolve() not in held]
    for path in dead:
        path.unlink(missing_ok=True)
    return dead


def extension_folder() -> Path:
    """Where torch and DeepSpeed build their operators."""
    named = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(named) if named else Path.home() / ".cache" / "torch_extensions"


def _open_files() -> set[Path]:
    """Every file that some process of this user holds open, as Linux tells it."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            found.add(Path(os.readlink(entry)))
        except OSError:  # the process or the descriptor has gone, or it is somebody else's
            continue
    return found
