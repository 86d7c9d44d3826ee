"""Reader of procedural tasks from reasoning-gym."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.suggestions import did_you_mean
from gemsmith.curation.config import ReasoningGymData
from gemsmith.curation.sources.rows import SourceRow


def read_reasoning_gym(config: ReasoningGymData, *, name: str, seed: int, root: Path) -> Iterator[SourceRow]:
    """Return the items of a task, generated from the seed."""
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if config.task not in DATASETS:
        raise UserError(
            f"data {name}: reasoning-gym has no task {config.task!r}{did_you_mean(config.task, DATASETS)}; "
            f"`task` must be one of its {len(DATASETS)} tasks."
        )
    settings = {"seed": seed, **config.options, "size": config.size}
    try:
        items = reasoning_gym.create_dataset(config.task, **settings)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(
            f"data {name}: task {config.task} refused its options {config.options}: {error or type(error).__name__}; "
            "see the task's configuration in reasoning-gym."
        ) from error
    return _items(items, config, name)


def _items(items: Any, config: ReasoningGymData, name: str) -> Iterator[SourceRow]:
    for index in range(config.size):
        try:
            columns = items[index]
        except Exception as error:  # whatever a task's generator raises, its options are what can be mended
            raise UserError(
                f"data {name}: task {config.task} could not make item {index} with options {config.options} "
                f"({type(error).__name__}: {error}); change its options or `size`."
            ) from error
        yield SourceRow(f"{config.task} item {index}", columns)
