"""Helper of rewards that use a verifier: time limits, and infrastructure faults that must not be scored 0."""

from collections.abc import Callable, Sequence

from gemsmith.contracts.errors import RunError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.reward import sample
from gemsmith.sandboxes.verdict import OverdueError, Status, Verdict


class Verdicts:
    """Requests to a verifier on behalf of one reward; `faults` counts completions that it failed on twice.

    Args:
        label: name of the reward in messages, such as "reward solved (code)".
        what: noun for the pending jobs in messages, such as "comparisons".
        time_limit: time limit of one call in seconds.
        stage: the stage that reports faults.
    """

    def __init__(self, label: str, what: str, time_limit: float, stage: Stage) -> None:
        self.faults = 0
        self._label, self._what, self._time_limit, self._stage = label, what, time_limit, stage

    def ask(
        self,
        verify: Callable[[float], list[Verdict]],
        asked: Sequence[int],
        prompts: Sequence[str],
        completions: Sequence[str],
    ) -> list[Verdict | None]:
        """Return a verdict for each sample in `asked`; None for an infrastructure fault.

        Args:
            verify: returns one verdict per element of `asked`, within the given number of seconds.
            asked: indices of the samples to verify.
            prompts: prompts of the whole batch.
            completions: completions of the whole batch.

        Raises:
            RunError: the time limit was exceeded, or all verdicts are infrastructure faults.
        """
        try:
            verdicts = verify(self._time_limit)
        except OverdueError as error:
            raise RunError(
                f"{self._label} did not finish within its time_limit of {self._time_limit:g} s: {error.missing} of "
                f"{len(asked)} {self._what} are missing, first {sample(asked[error.index], prompts, completions)}; "
                "raise the reward's `time_limit`."
            ) from error
        self._report_faults(verdicts)
        return [None if verdict.status is Status.INFRASTRUCTURE_FAULT else verdict for verdict in verdicts]

    def _report_faults(self, verdicts: Sequence[Verdict]) -> None:
        faults = [verdict for verdict in verdicts if verdict.status is Status.INFRASTRUCTURE_FAULT]
        if not faults:
            return
        self.faults += len(faults)
        if len(faults) == len(verdicts):
            raise RunError(
                f"{self._label} could not verify any of {len(faults)} completions in two attempts each: "
                f"{faults[0].reason}."
            )
        self._stage.say(
            f"{self._label}: {len(faults)} of {len(verdicts)} completions could not be verified in two attempts each "
            f"({faults[0].reason}); they get no reward."
        )
