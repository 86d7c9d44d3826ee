"""Opens the rewards that a stage names, and scores completions with each and with their weighted sum."""

import importlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.contracts.suggestions import did_you_mean
from gemsmith.contracts.waits import waiting
from gemsmith.rl.rewards.config import RewardConfig
from gemsmith.rl.rewards.reward import LARGEST, Columns, Reward, sample


@dataclass(frozen=True)
class RewardTable:
    """Rewards of a batch: the weighted sum, and each reward as it came, before its weight. None: it did not apply."""

    total: list[float]
    each: dict[str, list[float | None]]


class Rewards:
    """The rewards of a stage, open until the end of its `with` block.

    Args:
        parts: the rewards by name.
        terms: the configuration of each, or its weight alone.
        say: gets a line now and then while a reward is waited for, from another thread.
    """

    def __init__(
        self,
        parts: dict[str, Reward],
        terms: Mapping[str, RewardConfig | float],
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._parts = parts
        self.terms = {name: t if isinstance(t, RewardConfig) else RewardConfig(weight=t) for name, t in terms.items()}
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

    def __getitem__(self, name: str) -> Reward:
        return self._parts[name]

    @property
    def faults(self) -> dict[str, int]:
        """Completions so far that a reward could not judge through no fault of their own, by reward."""
        return {name: getattr(part, "faults", 0) for name, part in self._parts.items()}

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> RewardTable:
        """Score a batch with every reward, each the rows of its `tasks`; their weighted sum counts None as 0.

        Args:
            prompts: text of each sample's user turn.
            completions: what the policy said to it.
            columns: further values of each sample, such as answer, task and system.

        Raises:
            ValueError: the lists differ in length.
            UserError: a reward, or what it adds to the sum, is larger than LARGEST.
            UserError, RunError: a reward failed or was late; see `Reward.score`.
        """
        for column, values in {"completions": completions, **columns}.items():
            if len(values) != len(prompts):
                raise ValueError(f"{len(prompts)} prompts, but {len(values)} values of {column}")
        total = [0.0] * len(prompts)
        each: dict[str, list[float | None]] = {}
        for name, term in self.terms.items():
            each[name] = self._scored(name, prompts, completions, columns)
            total = [t + term.weight * (score or 0.0) for t, score in zip(total, each[name], strict=True)]
        return RewardTable(total, each)

    def _scored(self, name: str, prompts: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """One reward's score of each sample, None where the sample's task is not one of the reward's."""
        term = self.terms[name]
        tasks = columns.get("task") or [None] * len(prompts)
        rows = [row for row, task in enumerate(tasks) if term.applies_to(task)]
        scores: list[float | None] = [None] * len(prompts)
        if not rows:
            return scores
        given = {column: of for column, of in columns.items() if column != "completion_ids" or term.takes_ids}
        own = {column: [values[row] for row in rows] for column, values in given.items()}
        what = f"reward {name} to score {len(rows)} completions"
        with waiting(self._say, what, term.time_limit):
            found = self._parts[name].score([prompts[row] for row in rows], [completions[row] for row in rows], own)
        for row, score in zip(rows, found, strict=True):
            scores[row] = score
            if score is not None and not abs(score) * max(1.0, abs(term.weight)) <= LARGEST:
                raise UserError(
                    f"reward {name} gave {score:g} on {sample(row, prompts, completions)}; expected at most "
                    f"{LARGEST:g} in size, with its weight of {term.weight:g} as well: scale it."
                )
        return scores


def open_rewards(names: list[str], stage: Stage) -> Rewards:
    """Open rewards by their names in the recipe; use the result in a `with` block.

    Raises:
        UserError: no reward has that name, one is named twice, or one cannot be opened.
    """
    parts: dict[str, Reward] = {}
    terms: dict[str, RewardConfig] = {}
    try:
        for name in names:
            terms[name] = _config(name, stage)
            if name in parts:
                raise UserError(
                    f"stage {stage.id}: `rewards` names {name} twice; name each reward once and set its `weight`."
                )
            parts[name] = _scorer(terms[name])(name, terms[name], stage)
    except BaseException:
        Rewards(parts, terms).close()
        raise
    return Rewards(parts, terms, stage.say)


def _config(name: str, stage: Stage) -> RewardConfig:
    if name not in stage.rewards:
        raise UserError(
            f"stage {stage.id}: there is no reward {name!r}{did_you_mean(name, stage.rewards)}; "
            f"the recipe's rewards are {', '.join(stage.rewards) or 'none'}."
        )
    return stage.rewards[name]


def _scorer(config: RewardConfig) -> Callable[[str, RewardConfig, Stage], Reward]:
    module, _, scorer = config.entry.partition(":")
    return getattr(importlib.import_module(module), scorer)
