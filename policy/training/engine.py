"""The training engine: transformers' `Trainer`, with checkpoints that survive a kill, and progress for a stage."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.processes import count, rank
from gemsmith.contracts.reading import as_object
from gemsmith.contracts.stage import Stage, write_atomically
from gemsmith.contracts.stopping import Stopped, stop_request
from gemsmith.policy.config import EngineConfig, TrainingConfig
from gemsmith.policy.training.checkpoint_reading import check_reading
from gemsmith.policy.training.data_order import DataOrder
from gemsmith.policy.training.processes import from_all, wait_for_all
from gemsmith.policy.training.sequence_parallel import data_processes, sequences_shared

COMPLETE = "complete"
ROLLOUTS = "rollouts.jsonl"
"""File of example completions in a stage's folder; the step of a row is the one that the rollout came before."""
LOSSES = ("loss", "grad_norm", "train_loss")  # the last is of the whole training, where no line has the others
SHOWN = ("loss", "reward", "kl_to_initial", "entropy", "length", "accuracy", "mean_token_accuracy")


def training_arguments(
    config: TrainingConfig,
    stage: Stage,
    folder: Path,
    args_class: type[TrainingArguments] = TrainingArguments,
    model: nn.Module | None = None,
    sliceable: bool = False,
    **overrides: Any,
) -> TrainingArguments:
    """Return the arguments of a transformers or TRL trainer for one stage.

    Args:
        config: optimisation settings; `batch` counts examples over all processes and accumulation steps.
        stage: the stage, for its seed and engine.
        folder: folder of the checkpoints.
        args_class: `TrainingArguments` or a subclass of it, such as TRL's `SFTConfig`.
        model: the model to train; `zero: auto` depends on its size.
        sliceable: True if the loss is a sum over labels, so that processes can share sequences.
        overrides: fields of `args_class` to override.

    Raises:
        UserError: the batch cannot be divided among the processes.
    """
    engine = stage.engine or EngineConfig()
    processes = data_processes(engine, stage.id, sliceable=sliceable)
    if fault := config.batch_fault(processes):
        raise UserError(fault)
    micro = config.micro_batch or config.batch // processes
    gpu = torch.cuda.is_available()
    fields: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": config.steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": config.batch // (micro * processes),
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if config.schedule == "constant" else config.schedule,
        "warmup_steps": config.warmup,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "gradient_checkpointing": config.gradient_checkpointing,
        "optim": "adamw_torch_fused",
        "logging_steps": config.log_every,
        "save_strategy": "steps",
        "save_steps": config.save_every,
        "save_total_limit": 2,  # the newest may be half-written when the process is killed
        "report_to": engine.report_to or "none",
        "seed": stage.seed,
        "data_seed": stage.seed,
        "disable_tqdm": True,
        "use_cpu": not gpu,
        "bf16": gpu,
        "dataloader_pin_memory": gpu,
        "logging_nan_inf_filter": False,
    }
    if engine.deepspeed is not None:
        fields["deepspeed"] = _deepspeed(engine, stage, model)
        if config.gradient_checkpointing and config.lora and fields["deepspeed"]["zero_optimization"]["stage"] == 3:
            fields["gradient_checkpointing_kwargs"] = {"use_reentrant": True}  # the other kind miscounts frozen weights
    return args_class(**{**fields, **overrides})


def run_training(
    trainer: Trainer,
    stage: Stage,
    folder: Path,
    shown: Sequence[str] = SHOWN,
    part: tuple[int, int] = (0, 1),
    together: bool = False,
    **where: Any,
) -> None:
    """Train, or continue from the newest complete checkpoint in `folder`, and report progress to the stage.

    Args:
        trainer: any transformers or TRL trainer whose arguments came from `training_arguments`.
        stage: receives metrics (`metrics.jsonl`) and progress.
        folder: the trainer's `output_dir`.
        shown: metrics to print, of which the first few that the trainer logs are used.
        part: (i, n) when this is the i-th of n trainings of equal length in the stage, counted from 0.
        together: True if other trainings write to metrics.jsonl; `forget_what_runs_again` must have shortened it then.
        where: fields that mark the rows of metrics.jsonl, such as `run=0`, if a stage trains more than once.

    Raises:
        UserError: the loss, or the norm of its gradient, is NaN or infinite.
        Stopped: a signal stopped the training, if possible after a checkpoint at the end of the step.
    """
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ in ("PrinterCallback", "ProgressCallback", "RichProgressCallback"):
            trainer.remove_callback(callback)
    wait_for_all()
    if rank() == 0 and not together:
        forget_what_runs_again(stage, folder, where)
    wait_for_all()
    checkpoint = _newest(folder)
    if checkpoint:
        _check_processes(checkpoint, trainer)
        check_reading(trainer, checkpoint)
    # A rollout serves `updates` steps and is in no checkpoint, so a training can only stop between rollouts.
    trainer.add_callback(_StageCallback(stage, shown, part, where, getattr(trainer, "updates", 1)))
    shared = (stage.engine or EngineConfig()).sequence_parallel
    order = DataOrder(
        len(trainer.train_dataset), _batch(trainer.args) // shared, trainer.args.max_steps, trainer.args.data_seed
    )
    trainer._get_train_sampler = lambda *_: order
    if trainer.args.gradient_checkpointing and hasattr(trainer.model, "peft_config"):
        trainer.model.enable_input_require_grads()  # else nothing reaches the adapters of the first checkpointed layer
    try:
        with sequences_shared(trainer, shared), stop_request.saves_at_step_end():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except BaseException as error:
        if stop_request.requested or isinstance(error, KeyboardInterrupt):
            raise Stopped(_where_it_continues(folder)) from error
        raise
    finally:
        unset_hf_deepspeed_config()  # else the next model that is loaded is split across processes (ZeRO-3)


def forget_what_runs_again(stage: Stage, folder: Path, where: dict[str, Any]) -> None:
    """Remove incomplete checkpoints of `folder`, and the rows of metrics and rollouts after the newest complete one.

    Args:
        stage: the stage, for its metrics.jsonl and rollouts.jsonl.
        folder: folder of the checkpoints.
        where: fields that mark the training's rows.
    """
    _remove_half_written(folder)
    checkpoint = _newest(folder)
    step = _step(checkpoint) if checkpoint else 0
    _forget_rows_after(stage.metrics_file, step, where)
    _forget_rows_after(stage.folder / ROLLOUTS, step - 1, where)


def _where_it_continues(folder: Path) -> str:
    """Return the step that a stopped training continues from, as text."""
    complete = [path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if (path / COMPLETE).exists()]
    step = max(map(_step, complete), default=0)
    return f"from step {step}" if step else "from its start, because it had no checkpoint yet"


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a finished training."""
    shutil.rmtree(folder, ignore_errors=True)


def _deepspeed(engine: EngineConfig, stage: Stage, model: nn.Module | None) -> dict[str, Any]:
    from gemsmith.policy.training.deepspeed import (
        chosen_stage,
        deepspeed_json,
        extension_folder,
        prepare_environment,
        remove_dead_locks,
    )

    assert engine.deepspeed is not None
    if rank() == 0:
        for lock in remove_dead_locks(extension_folder()):
            stage.say(f"removed {lock}, left by a build that was killed")
    prepare_environment()
    zero = chosen_stage(engine.deepspeed, model, count())
    where = ", optimiser in the host's memory" if engine.deepspeed.offload_optimizer else ""
    stage.say(f"DeepSpeed: ZeRO stage {zero}, {count()} process{'es' if count() > 1 else ''}{where}")
    return deepspeed_json(engine.deepspeed, zero)


def _batch(args: TrainingArguments) -> int:
    """Return the number of examples of one optimiser step, over all processes."""
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])


def _newest(folder: Path) -> Path | None:
    """Return the newest checkpoint; incomplete ones must have been removed."""
    return max(folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=_step, default=None)


def _remove_half_written(folder: Path) -> None:
    """Remove checkpoints that were not written completely."""
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if not (checkpoint / COMPLETE).exists():
            shutil.rmtree(checkpoint)


def _check_processes(checkpoint: Path, trainer: Trainer) -> None:
    """Check that as many processes run as wrote a DeepSpeed checkpoint, which holds one part per process.

    Raises:
        UserError: there are more or fewer now.
    """
    written = (checkpoint / COMPLETE).read_text().strip()
    if trainer.is_deepspeed_enabled and written.isdecimal() and int(written) != trainer.args.world_size:
        raise UserError(
            f"{checkpoint} was written by {written} processes under DeepSpeed, and cannot be continued by "
            f"{trainer.args.world_size}: run with --processes {written}, or start the stage again with --fresh."
        )


def _forget_rows_after(path: Path, step: int, where: dict[str, Any]) -> None:
    """Remove the metrics of steps that a resumed training will run again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and not _is_after(line, step, where)]
    if len(kept) < len(lines):
        write_atomically(path, "".join(kept))


def _is_after(line: str, step: int, where: dict[str, Any]) -> bool:
    """Return True if a line is a row of a later step, or damaged: a kill may have cut it."""
    try:
        row = as_object(json.loads(line), ("step",))
    except (ValueError, RecursionError):
        return True
    return row["step"] > step and all(row.get(name) == value for name, value in where.items())


def _check_numbers(logged: dict[str, float], step: int, learning_rate: float) -> None:
    """End a training whose loss or gradient is NaN or infinite: all later weights would be NaN.

    Raises:
        UserError: one of them is not finite.
    """
    for name in LOSSES:
        if not math.isfinite(logged.get(name, 0.0)):
            raise UserError(
                f"the {name} is {logged[name]} at step {step}, so the training cannot continue: it "
                f"diverged, or its inputs are damaged. Lower learning_rate (now {learning_rate:g}), or check "
                "whether policy, teacher and rewards give finite numbers"
            )


class _StageCallback(TrainerCallback):
    """Callback that reports a trainer's logs and steps to a stage, and marks each complete checkpoint."""

    def __init__(
        self, stage: Stage, shown: Sequence[str], part: tuple[int, int], where: dict[str, Any], updates: int
    ) -> None:
        self.stage, self.shown, self.part, self.where, self.updates = stage, shown, part, where, updates
        self.stopping = False
        self.latest: dict[str, float] = {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        numbers = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
        self._record(numbers, state)
        _check_numbers(numbers, state.global_step, args.learning_rate)

    def _record(self, numbers: dict[str, float], state: TrainerState) -> None:
        if state.is_world_process_zero and not any(name.startswith("train_") for name in numbers):
            numbers.pop("epoch", None)
            self.latest = {name: numbers[name] for name in self.shown if name in numbers}
            self.stage.log(numbers, state.global_step, **self.where)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            index, parts = self.part
            done = index * state.max_steps + state.global_step
            self.stage.progress(done, parts * state.max_steps, "step", **self.latest)
        # All processes must stop at the same step, and the signal reaches them at different times.
        if state.global_step % self.updates == 0 and any(from_all(stop_request.requested)):
            self.stopping = control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        wait_for_all()  # the others have written their parts
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            write_atomically(checkpoint / COMPLETE, f"{args.world_size}\n")
        if self.stopping:
            wait_for_all()  # the checkpoint is complete for every process
            raise Stopped
