"""Reading of a training's checkpoint: a damaged file ends with a sentence that names the checkpoint."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import Trainer

from gemsmith.contracts.reading import read_json, reading

LOADERS = ("_load_from_checkpoint", "_load_optimizer_and_scheduler", "_load_rng_state")
EXPECTED = "a complete checkpoint of this training"
REMEDY = "delete its folder to continue from the checkpoint before it, or from the start if there is none"


def check_reading(trainer: Trainer, checkpoint: Path) -> None:
    """Make the trainer's loading of a checkpoint raise sentences.

    Each loader is replaced on this trainer alone; `trainer.train` as a whole is not wrapped, because an error of a
    training step says nothing about the checkpoint.

    Raises:
        UserError: the trainer's state in the checkpoint is damaged.
    """
    read_json(checkpoint / "trainer_state.json", EXPECTED, REMEDY, keys=("global_step", "log_history"))
    for name in LOADERS:
        setattr(trainer, name, _with_sentence(getattr(trainer, name), checkpoint))


def _with_sentence(load: Callable[..., Any], checkpoint: Path) -> Callable[..., Any]:
    @functools.wraps(load)
    def loaded(*args: Any, **kwargs: Any) -> Any:
        with reading(checkpoint, EXPECTED, REMEDY):
            return load(*args, **kwargs)

    return loaded
