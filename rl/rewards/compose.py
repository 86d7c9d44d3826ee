"""Opening of the rewards that a stage names, and scoring of completions by each reward and by their weighted sum."""

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
    """Rewards of a batch: the weighted sum, and each raw reward by name (None where it did not apply)."""

    total: list[float]
    each: dict[str, list[float | None]]


class Rewards:
    """Open rewards of a stage; a context manager that closes them.

    Args:
        parts: rewards by name.
        terms: configuration or weight of each reward, by name.
        say: called from another thread with a line from time to time while a reward takes long.
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
        """Close all rewards, even if closing one of them fails."""
        with ExitStack() as stack:
            for part in self._parts.values():
                stack.callback(part.close)

    @property
    def names(self) -> list[str]:
        """Return the names of the rewards, in the stage's order."""
        return list(self._parts)

    def __getitem__(self, name: str) -> Reward:
        return self._parts[name]

    @property
    def faults(self) -> dict[str, int]:
        """Return, by reward, the number of completions so far that infrastructure faults left without a value."""
        return {name: getattr(part, "faults", 0) for name, part in self._parts.items()}

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> RewardTable:
        """Score a batch with every reward; each scores only the rows of its `tasks`, and None counts as 0 in the sum.

        A completion that was cut off (`finished` is False) is treated as the reward's `cut_off` says. One that is left
        out has no score, and counts as the mean of the batch's other scores in the sum.

        Args:
            prompts: text of each sample's last user turn.
            completions: text of each sample's completion.
            columns: further values of each sample, such as answer, task and system.

        Raises:
            ValueError: the lists differ in length.
            UserError: a reward, or its weighted value, is larger than LARGEST.
            UserError, RunError: a reward failed or exceeded its time limit; see `Reward.score`.
        """
        for column, values in {"completions": completions, **columns}.items():
            if len(values) != len(prompts):
                raise ValueError(f"{len(prompts)} prompts, but {len(values)} values of {column}")
        total = [0.0] * len(prompts)
        each: dict[str, list[float | None]] = {}
        for name, term in self.terms.items():
            each[name] = self._scored(name, prompts, completions, columns)
            known = [score for score in each[name] if score is not None]
            neutral = sum(known) / len(known) if known else 0.0
            left_out = term.left_out({**columns, "completion": completions})
            filled = [neutral if left_out[row] else score or 0.0 for row, score in enumerate(each[name])]
            total = [t + term.weight * score for t, score in zip(total, filled, strict=True)]
        return RewardTable(total, each)

    def _scored(self, name: str, prompts: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """Return one reward's score of each sample; None for samples whose task is not one of the reward's."""
        term = self.terms[name]
        tasks = columns.get("task") or [None] * len(prompts)
        finished = columns.get("finished") or [True] * len(prompts)
        scores: list[float | None] = [None] * len(prompts)
        rows = []
        for row, task in enumerate(tasks):
            if not term.applies_to(task):
                continue
            if finished[row] or term.cut_off == "score":
                rows.append(row)
            elif term.cut_off == "penalty":
                scores[row] = -term.cut_off_penalty
        if not rows:
            return scores
        given = {column: values for column, values in columns.items() if column != "completion_ids" or term.takes_ids}
        own = {column: [values[row] for row in rows] for column, values in given.items()}
        what = f"reward {name} to score {len(rows)} completions"
        with waiting(self._say, what, term.time_limit):
            values = self._parts[name].score([prompts[row] for row in rows], [completions[row] for row in rows], own)
        for row, score in zip(rows, values, strict=True):
            scores[row] = score
            if score is not None and not abs(score) * max(1.0, abs(term.weight)) <= LARGEST:
                raise UserError(
                    f"reward {name} returned {score:g} on {sample(row, prompts, completions)}; expected an absolute "
                    f"value of at most {LARGEST:g}, also after multiplication by its weight {term.weight:g}: scale it."
                )
        return scores


def open_rewards(names: list[str], stage: Stage) -> Rewards:
    """Open rewards by their names in the recipe; use the result as a context manager.

    Raises:
        UserError: the recipe has no reward of that name, a name occurs twice, or a reward cannot be opened.
    """
    parts: dict[str, Reward] = {}
    terms: dict[str, RewardConfig] = {}
    try:
        for name in names:
            terms[name] = _config(name, stage)
            if name in parts:
                raise UserError(
                    f"stage {stage.id}: `rewards` names {name} twice: name it once and set its `weight` instead."
                )
            parts[name] = _scorer(terms[name])(name, terms[name], stage)
    except BaseException:
        Rewards(parts, terms).close()
        raise
    return Rewards(parts, terms, stage.say)


def _config(name: str, stage: Stage) -> RewardConfig:
    if name not in stage.rewards:
        raise UserError(
            f"stage {stage.id}: the recipe has no reward {name!r}{did_you_mean(name, stage.rewards)}; "
            f"expected one of its rewards: {', '.join(stage.rewards) or '(there are none)'}."
        )
    return stage.rewards[name]


def _scorer(config: RewardConfig) -> Callable[[str, RewardConfig, Stage], Reward]:
    module, _, scorer = config.entry.partition(":")
    return getattr(importlib.import_module(module), scorer)
