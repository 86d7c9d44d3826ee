"""Opens the rewards that a stage names, and composes them into one number for each completion."""

import difflib
import importlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from contracts.errors import UserError
from contracts.stage import Stage
from contracts.waits import waiting
from rl.rewards.config import RewardConfig
from rl.rewards.reward import Columns, Reward


@dataclass(frozen=True)
class RewardTable:
    """Rewards of a batch: the weighted sum, and each reward as it came, before its weight. None: it did not apply."""

    total: list[float]
    each: dict[str, list[float | None]]


class Rewards:
    """The rewards of a stage, open until the end of its `with` block.

    Args:
        parts: the rewards by name.
        weights: of each in the sum.
        limits: seconds that each may take for a batch, which it keeps itself.
        say: gets a line now and then while a reward is waited for, from another thread.
    """

    def __init__(
        self,
        parts: dict[str, Reward],
        weights: dict[str, float],
        limits: Mapping[str, float] | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._parts = parts
        self._weights = weights
        self._limits = limits or {}
        self._say = say

    def __enter__(self) -> "Rewards":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every reward, also when closing one of them fails."""
        with ExitStack() as stack:
            for part in self._parts.values():
                stack.callback(part.close)

    @property
    def names(self) -> list[str]:
        """Names of the rewards, in the stage's order."""
        return list(self._parts)

    @property
    def faults(self) -> dict[str, int]:
        """Completions so far that a reward could not judge through no fault of their own, by reward."""
        return {name: getattr(part, "faults", 0) for name, part in self._parts.items()}

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> RewardTable:
        """Score a batch with every reward; their weighted sum counts None as 0.

        Args:
            prompts: text of each sample's user turn.
            completions: what the policy said to it.
            columns: further values of each sample, such as answer, task and system.

        Raises:
            ValueError: the lists differ in length.
            UserError, RunError: a reward failed or was late; see `Reward.score`.
        """
        for column, values in {"completions": completions, **columns}.items():
            if len(values) != len(prompts):
                raise ValueError(f"{len(prompts)} prompts, but {len(values)} values of {column}")
        total = [0.0] * len(prompts)
        each: dict[str, list[float | None]] = {}
        for name, part in self._parts.items():
            what = f"reward {name} to score {len(prompts)} completions"
            with waiting(self._say, what, self._limits.get(name)):
                each[name] = part.score(prompts, completions, columns) if prompts else []
            total = [t + self._weights[name] * (score or 0.0) for t, score in zip(total, each[name], strict=True)]
        return RewardTable(total, each)


def open_rewards(names: list[str], stage: Stage) -> Rewards:
    """Open rewards by their names in the recipe; use the result in a `with` block.

    Raises:
        UserError: no reward has that name, one is named twice, or one cannot be opened.
    """
    parts: dict[str, Reward] = {}
    weights: dict[str, float] = {}
    limits: dict[str, float] = {}
    try:
        for name in names:
            config = _config(name, stage)
            if name in parts:
                raise UserError(
                    f"stage {stage.id}: `rewards` names {name} twice; name each reward once and set its `weight`."
                )
            parts[name] = _scorer(config)(name, config, stage)
            weights[name], limits[name] = config.weight, config.time_limit
    except BaseException:
        Rewards(parts, weights).close()
        raise
    return Rewards(parts, weights, limits, stage.say)


def _config(name: str, stage: Stage) -> RewardConfig:
    if name not in stage.rewards:
        near = difflib.get_close_matches(name, list(stage.rewards), n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise UserError(
            f"stage {stage.id}: there is no reward {name!r}{hint}; the recipe's rewards are "
            f"{', '.join(stage.rewards) or 'none'}."
        )
    return stage.rewards[name]


def _scorer(config: RewardConfig) -> Callable[[str, RewardConfig, Stage], Reward]:
    module, _, scorer = config.entry.partition(":")
    return getattr(importlib.import_module(module), scorer)
