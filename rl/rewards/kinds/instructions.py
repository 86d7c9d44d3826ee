"""Instructions reward: the share of a row's verifiable instructions that the completion follows."""

import time

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.config import InstructionsReward
from gemsmith.rl.rewards.reward import Columns, sample
from gemsmith.sandboxes.instructions.registry import Instruction, instructions


class Instructions:
    """Instructions reward based on IFEval's instructions; None for a row without instructions.

    The checks run in this process, because each takes less than a second for any completion.
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
                    f"{self._label} did not finish within its time_limit of {self._config.time_limit:g} s; it reached "
                    f"{sample(index, prompts, completions)}; raise the reward's `time_limit`."
                )
            scores.append(self._score(completion, wanted) if wanted else None)
        return scores

    def close(self) -> None:
        """See `Reward.close`."""

    def _score(self, completion: str, wanted: list[Instruction]) -> float:
        followed = [instruction.followed(completion, self._config.strict) for instruction in wanted]
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
                f"{self._label} found no instructions: column {self._config.instructions!r} is empty in all rows of "
                "the first batch; set the reward's `instructions` to the column with instruction ids."
            )
        return asked

    def _column(self, columns: Columns, name: str) -> list[object]:
        if name not in columns:
            raise UserError(
                f"{self._label}: the data has no column {name!r} (found {', '.join(sorted(columns))}); add it to the "
                "data section's `columns`, or set the reward's `instructions` and `kwargs`."
            )
        return columns[name]
