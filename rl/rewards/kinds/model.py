"""Reward-model reward: the score of a reward model that an earlier stage trained."""

import math
import time
from collections.abc import Iterable

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.reward_models.ensemble import Member, combine, kept_members
from gemsmith.rl.rewards.config import RewardModelReward
from gemsmith.rl.rewards.reward import Columns, first_not_finite, sample


class _LateError(Exception):
    """Raised inside a forward pass when the time limit has passed."""


class RewardModel:
    """Reward that scores completions with `gemsmith.reward_models.scorer` in this process.

    It checks the time limit before each module of the model, so that a late call stops by itself and leaves no
    computation running. The served models (the average or all members) stay in memory until the reward is closed;
    members score one after another.
    """

    def __init__(self, name: str, config: RewardModelReward, stage: Stage) -> None:
        if config.from_ not in stage.inputs:
            raise UserError(
                f"reward {name} (reward_model): found from {config.from_!r}, but stage {stage.id} has the output of "
                f"{', '.join(stage.inputs) or 'no stage'} only; set `from` to an earlier stage that trains a reward "
                "model."
            )
        from gemsmith.reward_models.scorer import RewardScorer

        self.name = name
        self._config = config
        self._deadline = math.inf
        output = stage.inputs[config.from_]
        try:
            served = [Member(output, 0.0)] if config.serve == "average" else kept_members(output)
        except UserError as error:
            raise UserError(
                f"reward {name} (reward_model): `serve: {config.serve}` needs the members: {error}"
            ) from error
        self._mean_rewards = [member.mean_reward for member in served]
        self._scorers: list[RewardScorer] = [RewardScorer(member.folder, config.batch) for member in served]
        for scorer in self._scorers:
            for module in scorer.model.modules():
                module.register_forward_pre_hook(self._in_time)

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """See `Reward.score`."""
        none: list[None] = [None] * len(prompts)
        systems, earlier = columns.get("system") or none, columns.get("earlier_turns") or none
        messages = [_messages(*each) for each in zip(prompts, systems, earlier, strict=True)]
        if not self._scorers:
            raise ValueError(f"reward {self.name} is closed")
        self._deadline = time.monotonic() + self._config.time_limit
        try:
            each = [scorer.score(messages, completions) for scorer in self._scorers]
        except UserError as error:
            raise UserError(f"reward {self.name} (reward_model): {error}") from error
        except _LateError:
            raise RunError(
                f"reward {self.name} (reward_model) did not score {len(completions)} completions within its time_limit "
                f"of {self._config.time_limit:g} s; raise the reward's `time_limit`, or lower its `batch`."
            ) from None
        for scores in each:
            if len(scores) != len(prompts):
                raise RunError(
                    f"reward {self.name} (reward_model) returned {len(scores)} scores for {len(prompts)} completions."
                )
            if (index := first_not_finite(scores)) is not None:
                raise RunError(
                    f"reward {self.name} (reward_model) returned {scores[index]} on "
                    f"{sample(index, prompts, completions)}, so the model of stage {self._config.from_!r} is broken: "
                    "check the metrics of that stage."
                )
        if self._config.serve == "average":
            return list(each[0])
        return list(combine(each, self._mean_rewards, self._config.serve, self._config.deviations))

    def close(self) -> None:
        """See `Reward.close`."""
        self._scorers = []

    def _in_time(self, *_: object) -> None:
        if time.monotonic() > self._deadline:
            raise _LateError


def _messages(prompt: str, system: str | None, earlier: Iterable[tuple[str, str]] | None) -> list[dict[str, str]]:
    first = [] if system is None else [("system", system)]
    return [{"role": role, "content": text} for role, text in (*first, *(earlier or ()), ("user", prompt))]
