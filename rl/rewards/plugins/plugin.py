"""User-defined reward, called in a child process that is stopped at the time limit."""

import json
import pickle
import time
from typing import Any

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.processes import CRASHES
from gemsmith.contracts.stage import Stage
from gemsmith.contracts.target import REWARDS, find_target
from gemsmith.contracts.waits import waiting
from gemsmith.rl.rewards.config import PythonReward
from gemsmith.rl.rewards.plugins.process import PluginProcess
from gemsmith.rl.rewards.reward import Columns, first_not_finite, sample
from gemsmith.sandboxes.child import ChildError, ChildExitedError, ChildTimeoutError

IMPORT_LIMIT = 60.0
"""Time limit of importing a function and constructing a class, in seconds, unless the reward's own is longer."""
SEARCH_LIMIT = 10.0
"""Time limit of the search for the sample that makes a function fail, in seconds, in addition to its time limit."""
FINITE = "it must return one finite number or None for each completion"


class _BrokenError(Exception):
    """Failure of a call.

    Attributes:
        index: index of the sample, if known.
        late: True if the call was stopped at its time limit.
        remedy: advice for the message.
        killed: True if a signal from outside ended the process: a fault of the machine, such as too little memory.
    """

    def __init__(
        self, how: str, index: int | None = None, late: bool = False, remedy: str = FINITE, killed: bool = False
    ) -> None:
        super().__init__(how)
        self.killed = killed
        self.index = index
        self.late = late
        self.remedy = remedy


class Plugin:
    """Reward from a python function f(prompts=..., completions=..., **columns, **options), sync or async.

    A class is constructed once with the options, and its instance is called without them. The target is imported once,
    in the child process, and keeps its state between calls. Without **kwargs it receives only the columns it names.
    Its output goes to standard error. If a call raises, exits, hangs, exceeds the memory limit or does not return
    numbers, the run stops with an error that names the first sample on which the function fails alone. The search for
    it takes at most `SEARCH_LIMIT` further seconds, and at most the time limit.
    """

    def __init__(self, name: str, config: PythonReward, stage: Stage) -> None:
        self.name = name
        self._config = config
        self._label = f"reward {name} ({config.target})"
        self._say = stage.say
        try:
            target = find_target(config.target, stage.root, REWARDS)
        except UserError as error:
            raise UserError(f"reward {name}: {error}") from error
        self._arguments = [*target.arguments(stage.root), json.dumps(config.options)]
        self._process: PluginProcess | None = None
        try:
            self._open()
        except _BrokenError as error:
            self.close()
            kind = RunError if error.killed else UserError
            raise kind(f"{self._label} could not be loaded: {error}.") from error

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """See `Reward.score`."""
        batch = {**columns, "prompts": prompts, "completions": completions}
        try:
            return self._ask(batch, self._config.time_limit)
        except _BrokenError as error:
            failure, index = error, error.index
            try:
                if index is None and len(prompts) > 1:
                    failure, index = self._culprit(batch, error)
            finally:
                self.close()
            where = f"on a batch of {len(prompts)} samples, but on none of the samples that were tried alone"
            if index is None and len(prompts) == 1:
                index = 0
            if index is not None:
                where = f"on {sample(index, prompts, completions)}"
            kind = RunError if failure.killed else UserError
            raise kind(f"{self._label} failed {where}: {failure}; {failure.remedy}.") from error

    def close(self) -> None:
        """See `Reward.close`."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def _ask(self, batch: dict[str, Any], time_limit: float) -> list[float | None]:
        """Call the function once; a child process that fails is closed, and the next call starts a new one."""
        try:
            request = pickle.dumps(batch)
        except Exception as error:
            raise RunError(
                f"{self._label}: a column could not be sent to the reward's process ({error}); remove it from the data "
                "section's `columns`."
            ) from error
        self._open()
        return self._answer(request, time_limit, f"{time_limit:g} s for the function to return")

    def _open(self) -> None:
        """Start the process and import the target, unless a process is running."""
        if self._process is not None:
            return
        limit = max(IMPORT_LIMIT, self._config.time_limit)
        with waiting(self._say, f"{self._label} to be imported", limit):
            try:
                self._process = PluginProcess(
                    "gemsmith.rl.rewards.plugins.worker:open_function", self._arguments, self._config.memory, limit
                )
            except ChildError as error:
                raise _BrokenError(f"its process {error}", killed=_was_killed(error)) from error
            try:
                self._answer(
                    b"", limit, f"{limit:g} s for its module to be imported (a longer `time_limit` extends this too)"
                )
            except BaseException:
                self.close()
                raise

    def _answer(self, request: bytes, limit: float, waited: str) -> list[float | None]:
        """Send a request to the process and return the scores; close the process if it does not answer."""
        assert self._process is not None
        try:
            answer = json.loads(self._process.call(request, limit))
        except ChildError as error:
            overgrown = self._process.overgrown
            self.close()
            if overgrown is not None:
                raise _BrokenError(
                    f"its process and the processes it started used {overgrown} MiB, more than its `memory` of "
                    f"{self._config.memory} MiB, and were stopped",
                    remedy="raise the reward's `memory` if it needs more",
                ) from error
            raise _lost(error, waited) from error
        if "fault" in answer:
            raise _BrokenError(answer["fault"], answer["index"])
        if (index := first_not_finite(answer["scores"])) is not None:
            raise _BrokenError(f"it returned {answer['scores'][index]}", index)
        return answer["scores"]

    def _culprit(self, batch: dict[str, Any], broken: _BrokenError) -> tuple[_BrokenError, int | None]:
        """Call the function on one sample after another until one fails; return the failure and the sample's index.

        A sample may take half of the search's time limit. If one exceeds it after a batch that hung, it is the culprit.
        After a batch that failed without hanging, such a sample is only slow, and the search ends without a culprit.
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
        return _BrokenError(f"the run waited {waited} and then stopped it", late=True, remedy=longer)
    if _was_killed(error):
        remedy = "a function of yours may have done it, or the system for lack of memory"
        return _BrokenError(f"its process {error}", remedy=remedy, killed=True)
    return _BrokenError(f"its process {error}" if isinstance(error, ChildExitedError) else str(error))


def _was_killed(error: ChildError) -> bool:
    """Return True if a signal from outside ended the process, and not a crash of the function's own code."""
    code = error.code if isinstance(error, ChildExitedError) else None
    return code is not None and code < 0 and -code not in CRASHES
