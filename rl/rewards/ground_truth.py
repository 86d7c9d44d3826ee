"""The mathematics reward: 1 where the completion's answer equals the true one, 0 where it does not."""

from contracts.errors import RunError, UserError
from contracts.stage import Stage
from rl.rewards.config import MathReward
from rl.rewards.reward import Columns, sample
from sandboxes.math_verifier import MathVerifier, OverdueError
from sandboxes.verdict import Status, Verdict


class GroundTruth:
    """Verdicts of `sandboxes.math_verifier` as rewards.

    None where a row has no answer, and where the verifier itself failed twice (an infrastructure fault): that is said
    and counted in `faults`, never scored 0.
    """

    def __init__(self, name: str, config: MathReward, stage: Stage) -> None:
        self.name = name
        self.faults = 0
        self._config = config
        self._stage = stage
        self._seen_answer = False
        self._verifier = MathVerifier(time_limit=min(5.0, config.time_limit))

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """See `Reward.score`."""
        answers = self._answers(columns, len(prompts))
        asked = [i for i, answer in enumerate(answers) if answer is not None]
        try:
            verdicts = self._verifier.verify(
                [completions[i] for i in asked], [str(answers[i]) for i in asked], within=self._config.time_limit
            )
        except OverdueError as error:
            raise RunError(
                f"reward {self.name} (math) was not done within its time_limit of {self._config.time_limit:g} s: it "
                f"waited for {error.missing} of {len(asked)} comparisons, the first of them "
                f"{sample(asked[error.index], prompts, completions)}; raise the reward's `time_limit`."
            ) from error
        self._tell_faults(verdicts)
        scores: list[float | None] = [None] * len(prompts)
        for i, verdict in zip(asked, verdicts, strict=True):
            scores[i] = None if verdict.status is Status.INFRASTRUCTURE_FAULT else verdict.score
        return scores

    def close(self) -> None:
        """See `Reward.close`."""
        self._verifier.close()

    def _answers(self, columns: Columns, count: int) -> list[object]:
        if self._config.answer not in columns:
            raise UserError(
                f"reward {self.name} (math) reads the ground truth from column {self._config.answer!r}, which the data "
                f"does not have (it has {', '.join(sorted(columns))}); set its `answer`, or the data's `columns`."
            )
        answers = [None if value is None or value == "" else value for value in columns[self._config.answer]]
        self._seen_answer = self._seen_answer or any(answer is not None for answer in answers)
        if count and not self._seen_answer:
            raise UserError(
                f"reward {self.name} (math) found no ground truth: column {self._config.answer!r} is empty in each row "
                "of the first batch; map `answer` in the data section."
            )
        return answers

    def _tell_faults(self, verdicts: list[Verdict]) -> None:
        faults = [verdict for verdict in verdicts if verdict.status is Status.INFRASTRUCTURE_FAULT]
        if not faults:
            return
        self.faults += len(faults)
        if len(faults) == len(verdicts):
            raise RunError(
                f"reward {self.name} (math) could not verify any of {len(faults)} completions, tried twice each: "
                f"{faults[0].reason}."
            )
        self._stage.say(
            f"reward {self.name}: {len(faults)} of {len(verdicts)} completions could not be verified, tried twice each "
            f"({faults[0].reason}); they have no reward."
        )
