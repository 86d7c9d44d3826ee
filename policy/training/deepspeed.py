"""DeepSpeed's configuration and environment, and removal of abandoned build locks."""

import os
import socket
from pathlib import Path
from typing import Any

from gemsmith.policy.config import DeepSpeedConfig

WITHOUT_A_SIZE = 2  # what `zero: auto` is where no model is at hand


def deepspeed_json(config: DeepSpeedConfig, zero: int) -> dict[str, Any]:
    """Return the dictionary for transformers' `TrainingArguments(deepspeed=...)`; transformers fills in "auto".

    The optimiser is always torch's AdamW, even if its state is offloaded, so that no operator has to be compiled.
    """
    optimisation: dict[str, Any] = {"stage": zero}
    if config.offload_optimizer:
        optimisation["offload_optimizer"] = {"device": "cpu"}
    if zero == 3:
        optimisation["stage3_gather_16bit_weights_on_model_save"] = True
        optimisation["stage3_param_persistence_threshold"] = "auto"  # ten times the width: norms stay whole
    return {
        "zero_optimization": optimisation,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "steps_per_print": 1_000_000_000,
    }


def chosen_stage(config: DeepSpeedConfig, model: Any, processes: int) -> int:
    """Return the recipe's ZeRO stage, or a suitable one for the model and this machine."""
    if config.zero != "auto":
        return config.zero
    if model is None:
        return WITHOUT_A_SIZE
    parameters = list(model.parameters())
    return suitable_stage(
        sum(p.numel() for p in parameters),
        sum(p.numel() for p in parameters if p.requires_grad),
        processes,
        _memory_of_a_process(),
        offload=config.offload_optimizer,
        weight_bytes=parameters[0].element_size(),
    )


def suitable_stage(
    parameters: int, trained: int, processes: int, memory: float, *, offload: bool = False, weight_bytes: int = 2
) -> int:
    """Return the lowest ZeRO stage from 1 whose weights, gradients and optimiser take at most half of a process's
    memory.

    Args:
        parameters: number of the model's parameters.
        trained: number of trained parameters; fewer under LoRA.
        processes: number of processes that share what a stage shards.
        memory: memory of one process, in bytes.
        offload: True if the optimiser's state is elsewhere.
        weight_bytes: bytes per weight: 2 in bfloat16, where AdamW keeps a float32 copy besides its two moments.

    Returns:
        1, 2 or 3; also 3 if nothing fits.
    """
    return next(
        (
            zero
            for zero in (1, 2)
            if 2 * sum(model_bytes(parameters, trained, processes, zero, offload=offload, weight_bytes=weight_bytes))
            <= memory
        ),
        3,
    )


def model_bytes(
    parameters: int, trained: int, processes: int, zero: int, *, offload: bool = False, weight_bytes: int = 2
) -> tuple[float, float, float]:
    """Return the bytes of weights, gradients and optimiser that one process holds under a ZeRO stage.

    The optimiser has two float32 moments per trained parameter, and a float32 copy of it if the weights are not
    float32.
    """
    state = 0 if offload else 8 if weight_bytes == 4 else 12
    return (
        weight_bytes * parameters / (processes if zero >= 3 else 1),
        weight_bytes * trained / (processes if zero >= 2 else 1),
        state * trained / (processes if zero >= 1 else 1),
    )


def prepare_environment() -> None:
    """Set the variables of a single DeepSpeed process if no launcher set them; without them it asks for mpi4py.

    At the start of a run on a CPU, DeepSpeed would also compile an all-reduce operator through shared memory, which
    takes most of a minute and is used only in inference; a variable makes it believe that this machine does not support
    it.
    """
    import deepspeed.ops

    deepspeed.ops.__dict__.setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in alone.items():
        os.environ.setdefault(name, value)


def _memory_of_a_process() -> float:
    """Return the bytes of this process's GPU, or its share of this machine's memory."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def remove_dead_locks(folder: Path) -> list[Path]:
    """Remove `lock` files of extension builds under `folder` that no living process holds open; return them.

    torch's builder creates the file, keeps it open while it compiles, and waits forever for an existing one. A build
    that was killed leaves its lock behind.
    """
    locks = [path for path in folder.glob("**/lock") if path.is_file()]
    held = _open_files() if locks else set()
    dead = [path for path in locks if path.resolve() not in held]
    for path in dead:
        path.unlink(missing_ok=True)
    return dead


def extension_folder() -> Path:
    """Return the folder where torch and DeepSpeed build their operators."""
    named = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(named) if named else Path.home() / ".cache" / "torch_extensions"


def _open_files() -> set[Path]:
    """Return every file that a process of this user holds open (Linux)."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            found.add(Path(os.readlink(entry)))
        except OSError:  # the process or the descriptor has gone, or it is somebody else's
            continue
    return found
