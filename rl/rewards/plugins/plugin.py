"""A reward function of the user's own, called in a child process that can be stopped at the time limit."""

import json
import pickle
import time
from typing import Any

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.contracts.target import REWARDS, find_target
from gemsmith.contracts.waits import waiting
from gemsmith.rl.rewards.config import PythonReward
from gemsmith.rl.rewards.plugins.process import PluginProcess
from gemsmith.rl.rewards.reward import Columns, first_not_finite, sample
from gemsmith.sandboxes.child import ChildError, ChildExitedError, ChildTimeoutError

IMPORT_LIMIT = 60.0
"""Seconds that importing a function and constructing a class may take; a longer time limit of the reward counts."""
SEARCH_LIMIT = 10.0
"""Seconds, at most, that looking for the sample that breaks a function may take on top of its time limit."""
FINITE = "it must return one finite number or None for each completion"


class _BrokenError(Exception):
    """A call failed: `args[0]` says how. `index` is the sample, where it is known; a `late` call was stopped."""

    def __init__(self, how: str, index: int | None = None, late: bool = False, remedy: str = FINITE) -> None:
        super().__init__(how)
        self.index = index
        self.late = late
        self.remedy = remedy


class Plugin:
    """A python function as a reward: f(prompts=..., completions=..., **columns, **options), sync or async.

    A class is constructed once with the options, and its instance called without them. Either is imported once, in the
    child, and keeps its state between calls. Without **kwargs it is given only the columns that it names. What it
    prints goes to standard error. A call that raises, exits, hangs, holds too much memory or returns no numbers ends
    the run with the first sample that does it alone, looked for within `SEARCH_LIMIT` more seconds (and never more than
    the time limit).
    """

    def __init__(self, name: str, config: PythonReward, stage: Stage) -> None:
        self.name = name
        self._config = config
        self._label = f"reward {name} ({config.target})"
        self._say = stage.say
        try:
            found = find_target(config.target, stage.root, REWARDS)
        except UserError as error:
            raise UserError(f"reward {name}: {error}") from error
        self._arguments = [*found.arguments(stage.root), json.dumps(config.options)]
        self._process: PluginProcess | None = None
        try:
            self._open()
        except _BrokenError as error:
            self.close()
            raise UserError(f"{self._label} cannot be used: {error}.") from error

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """See `Reward.score`."""
        batch = {**columns, "prompts": prompts, "completions": completions}
        try:
            return self._ask(batch, self._config.time_limit)
        except _BrokenError as error:
            found, index = error, error.index
            try:
                if index is None and len(prompts) > 1:
                    found, index = self._culprit(batch, error)
            finally:
                self.close()
            where = f"on a batch of {len(prompts)} samples, and on none of those tried alone"
            if index is None and len(prompts) == 1:
                index = 0
            if index is not None:
                where = f"on {sample(index, prompts, completions)}"
            raise UserError(f"{self._label} failed {where}: {found}; {found.remedy}.") from error

    def close(self) -> None:
        """See `Reward.close`."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def _ask(self, batch: dict[str, Any], time_limit: float) -> list[float | None]:
        """One call of the function; a child that is lost is not kept."""
        try:
            request = pickle.dumps(batch)
        except Exception as error:
            raise RunError(
                f"{self._label}: a column cannot be sent to its process ({error}); leave it out of `columns`."
            ) from error
        self._open()
        return self._told(request, time_limit, f"{time_limit:g} s for the function to return")

    def _open(self) -> None:
        """Start the process and import the target, where that is not done."""
        if self._process is not None:
            return
        limit = max(IMPORT_LIMIT, self._config.time_limit)
        with waiting(self._say, f"{self._label} to be imported", limit):
            try:
                self._process = PluginProcess(
                    "gemsmith.rl.rewards.plugins.worker:open_function", self._arguments, self._config.memory, limit
                )
            except ChildError as error:
                raise _BrokenError(f"its process {error}") from error
            try:
                self._told(
                    b"", limit, f"{limit:g} s for its module to be imported (a longer `time_limit` counts here too)"
                )
            except BaseException:
                self.close()
                raise

    def _told(self, request: bytes, limit: float, waited: str) -> list[float | None]:
        """What the process answers; one that is lost is not kept."""
        assert self._process is not None
        try:
            answer = json.loads(self._process.call(request, limit))
        except ChildError as error:
            overgrown = self._process.overgrown
            self.close()
            if overgrown is not None:
                raise _BrokenError(
                    f"it held {overgrown} MiB together with what it started, over its `memory` of "
                    f"{self._config.memory} MiB, and was stopped",
                    remedy="raise the reward's `memory` if it needs more",
                ) from error
            raise _lost(error, waited) from error
        if "fault" in answer:
            raise _BrokenError(answer["fault"], answer["index"])
        if (index := first_not_finite(answer["scores"])) is not None:
            raise _BrokenError(f"it returned {answer['scores'][index]}", index)
        return answer["scores"]

    def _culprit(self, batch: dict[str, Any], broken: _BrokenError) -> tuple[_BrokenError, int | None]:
        """Call the function on one sample after another until one fails; how it fails, and which one it is.

        One sample may take half of the time there is: after a batch that hung, it is then the one that hangs. After a
        batch that failed at once, it is only slow, and the search ends without a culprit.
        """
        budget = min(SEARCH_LIMIT, self._config.time_limit)
        self.close()
        try:
            self._open()
        except _BrokenError:
            return broken, None
        deadline = time.monotonic() + budget
        for index in range(len(batch["prompts"])):
            left = deadline - time.monotonic()
            if left < budget / 2:
                break
            try:
                self._ask({name: [values[index]] for name, values in batch.items()}, budget / 2)
            except _BrokenError as error:
                if error.late and not broken.late:
                    break
                return (broken if error.late else error), index
        return broken, None


def _lost(error: ChildError, waited: str) -> _BrokenError:
    if isinstance(error, ChildTimeoutError):
        longer = "raise the reward's `time_limit` if it needs longer"
        return _BrokenError(f"the run waited {waited}, and stopped it", late=True, remedy=longer)
    return _BrokenError(f"its process {error}" if isinstance(error, ChildExitedError) else str(error))
