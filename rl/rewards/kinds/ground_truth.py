"""Mathematics reward: 1 if the completion's answer equals the ground truth, else 0."""

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.config import MathReward
from gemsmith.rl.rewards.kinds.verdicts import Verdicts
from gemsmith.rl.rewards.reward import Columns
from gemsmith.sandboxes.mathematics.verifier import MathVerifier


class GroundTruth:
    """Mathematics reward from the verdicts of `gemsmith.sandboxes.mathematics.verifier`.

    A completion that was cut off (column `finished` is False) scores 0. The score is None if a row has no answer, or if
    the verifier failed twice: such infrastructure faults are reported and counted in `faults`, never scored 0.
    """

    def __init__(self, name: str, config: MathReward, stage: Stage) -> None:
        self.name = name
        self._config = config
        self._seen_answer = False
        self._verdicts = Verdicts(f"reward {name} (math)", "comparisons", config.time_limit, stage)
        self._verifier = MathVerifier(time_limit=min(5.0, config.time_limit))

    @property
    def faults(self) -> int:
        """Return the number of completions so far that infrastructure faults left without a score."""
        return self._verdicts.faults

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """See `Reward.score`."""
        answers = self._answers(columns, len(prompts))
        asked = [i for i, answer in enumerate(answers) if answer is not None]
        finished = columns.get("finished") or [True] * len(prompts)
        verdicts = self._verdicts.ask(
            lambda within: self._verifier.verify(
                [completions[i] for i in asked],
                [str(answers[i]) for i in asked],
                within=within,
                finished=[finished[i] is not False for i in asked],
            ),
            asked,
            prompts,
            completions,
        )
        scores: list[float | None] = [None] * len(prompts)
        for i, verdict in zip(asked, verdicts, strict=True):
            scores[i] = None if verdict is None else verdict.score
        return scores

    def close(self) -> None:
        """See `Reward.close`."""
        self._verifier.close()

    def _answers(self, columns: Columns, count: int) -> list[object]:
        if self._config.answer not in columns:
            raise UserError(
                f"reward {self.name} (math): the data has no column {self._config.answer!r} with the ground truth "
                f"(found {', '.join(sorted(columns))}); set the reward's `answer`, or the data section's `columns`."
            )
        answers = [None if value is None or value == "" else value for value in columns[self._config.answer]]
        self._seen_answer = self._seen_answer or any(answer is not None for answer in answers)
        if count and not self._seen_answer:
            raise UserError(
                f"reward {self.name} (math) found no ground truth: column {self._config.answer!r} is empty in all rows "
                "of the first batch; map `answer` in the data section."
            )
        return answers
