"""The instructions reward: how many of a row's verifiable instructions the completion follows."""

import time

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.config import InstructionsReward
from gemsmith.rl.rewards.reward import Columns, sample
from gemsmith.sandboxes.instructions.registry import Instruction, instructions


class Instructions:
    """IFEval's instructions as rewards; None where a row has none.

    They are checked in this process: each takes less than a second whatever the completion is.
    """

    def __init__(self, name: str, config: InstructionsReward, stage: Stage) -> None:
        self._label = f"reward {name} (instructions)"
        self._config = config
        self._seen_instructions = False

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """See `Reward.score`."""
        asked = self._instructions(prompts, completions, columns)
        deadline = time.monotonic() + self._config.time_limit
        scores: list[float | None] = []
        for index, (completion, wanted) in enumerate(zip(completions, asked, strict=True)):
            if time.monotonic() > deadline:
                raise RunError(
                    f"{self._label} was not done within its time_limit of {self._config.time_limit:g} s, before "
                    f"{sample(index, prompts, completions)}; raise the reward's `time_limit`."
                )
            scores.append(self._score(completion, wanted) if wanted else None)
        return scores

    def close(self) -> None:
        """See `Reward.close`."""

    def _score(self, completion: str, wanted: list[Instruction]) -> float:
        followed = [one.followed(completion, self._config.strict) for one in wanted]
        return float(all(followed)) if self._config.score == "all" else sum(followed) / len(followed)

    def _instructions(self, prompts: list[str], completions: list[str], columns: Columns) -> list[list[Instruction]]:
        ids, fields = (self._column(columns, name) for name in (self._config.instructions, self._config.kwargs))
        asked = []
        for index, (names, given) in enumerate(zip(ids, fields, strict=True)):
            try:
                asked.append(instructions(names, given) if names else [])
            except UserError as error:
                raise UserError(f"{self._label}, {sample(index, prompts, completions)}: {error}") from error
        self._seen_instructions = self._seen_instructions or any(asked)
        if prompts and not self._seen_instructions:
            raise UserError(
                f"{self._label} found no instructions: column {self._config.instructions!r} is empty in each row of "
                "the first batch."
            )
        return asked

    def _column(self, columns: Columns, name: str) -> list[object]:
        if name not in columns:
            raise UserError(
                f"{self._label} reads column {name!r}, which the data does not have (it has "
                f"{', '.join(sorted(columns))}); add it to the data's `columns`, or set the reward's `instructions` "
                "and `kwargs`."
            )
        return columns[name]
