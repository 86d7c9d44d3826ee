"""Code reward: 1 if the completion's program passes the tests of its row, else 0; or the share of passed cases."""

from collections import OrderedDict
from typing import Any

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.contracts.waits import waiting
from gemsmith.rl.rewards.config import CodeReward
from gemsmith.rl.rewards.kinds.verdicts import Verdicts
from gemsmith.rl.rewards.reward import Columns, sample
from gemsmith.sandboxes.code.jobs import Calls, Limits, Script, Stdio
from gemsmith.sandboxes.code.records import NoTestsError, Problem, RecordError, read_record
from gemsmith.sandboxes.code.verifier import CodeVerifier
from gemsmith.sandboxes.verdict import OverdueError, Verdict

REMEMBERED = 4096  # parsed problems kept in memory
OF_THE_COMPLETION = ("finished", "completion_ids")
"""Columns that differ between completions of one row."""


class Code:
    """Code reward from the verdicts of `gemsmith.sandboxes.code.verifier`.

    A completion that was cut off (column `finished` is False) counts as one without a program and scores 0. The score
    is None if a row has no tests, or if the sandbox failed twice: such infrastructure faults are reported and counted
    in `faults`, never scored 0.
    """

    def __init__(self, name: str, config: CodeReward, stage: Stage) -> None:
        self.name = name
        self._config = config
        self._problems: OrderedDict[str, Problem | None] = OrderedDict()
        self._seen_tests = False
        what = f"programs at {config.url}" if config.backend == "http" else "programs"
        self._verdicts = Verdicts(f"reward {name} (code)", what, config.time_limit, stage)
        with waiting(stage.say, f"the sandbox of reward {name} (code) to open"):
            self._verifier = open_verifier(name, config)

    @property
    def faults(self) -> int:
        """Return the number of completions so far that infrastructure faults left without a score."""
        return self._verdicts.faults

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """See `Reward.score`."""
        per_row = self.problems(prompts, completions, columns)
        problems = {index: problem for index, problem in enumerate(per_row) if problem is not None}
        asked = list(problems)
        finished = columns.get("finished") or [True] * len(prompts)
        verdicts = self._verdicts.ask(
            lambda within: self._verifier.verify(
                [completions[index] for index in asked],
                list(problems.values()),
                within=within,
                finished=[finished[index] is not False for index in asked],
            ),
            asked,
            prompts,
            completions,
        )
        scores: list[float | None] = [None] * len(prompts)
        for index, verdict in zip(asked, verdicts, strict=True):
            scores[index] = None if verdict is None else self._score(verdict, problems[index])
        return scores

    def problems(self, prompts: list[str], completions: list[str], columns: Columns) -> list[Problem | None]:
        """Read the problem (tests) of each row; None for a row without tests.

        Raises:
            UserError: a row's tests cannot be read, or no row so far has any.
        """
        found = [self._problem(index, prompts, completions, columns) for index in range(len(prompts))]
        self._seen_tests = self._seen_tests or any(problem is not None for problem in found)
        if prompts and not self._seen_tests:
            raise UserError(
                f"reward {self.name} (code) found no tests in any row of the first batch, which has the columns "
                f"{', '.join(sorted(columns))}; add the columns with the tests to the data section's `columns`, and "
                "check the reward's `format` and `tests`."
            )
        return found

    @property
    def programs_at_once(self) -> int:
        """Return the number of programs that the sandbox runs at once."""
        return self._verifier.workers

    def verdict(self, completion: str, problem: Problem, finished: bool = True) -> Verdict:
        """Return one verdict, whose status may be an infrastructure fault; safe to call from any thread.

        Raises:
            RunError: the reward's time limit was exceeded.
        """
        limit = self._config.time_limit
        try:
            return self._verifier.verify([completion], [problem], within=limit, finished=[finished])[0]
        except OverdueError as error:
            raise RunError(
                f"reward {self.name} (code) did not finish one program within its time_limit of {limit:g} s; raise the "
                "reward's `time_limit`."
            ) from error

    def close(self) -> None:
        """See `Reward.close`."""
        self._verifier.close()

    def _score(self, verdict: Verdict, problem: Problem) -> float:
        if not self._config.partial or verdict.evidence is None or not isinstance(problem.tests, Stdio | Calls):
            return verdict.score
        return sum(verdict.evidence.cases) / len(problem.tests.cases)

    def _problem(self, index: int, prompts: list[str], completions: list[str], columns: Columns) -> Problem | None:
        """Return the problem of a row, or None if it has no tests; completions of one row share the parsed problem."""
        own = {name: values[index] for name, values in columns.items() if name not in OF_THE_COMPLETION}
        row = {name: value for name, value in own.items() if value not in (None, "")}
        key = repr(row)
        if key not in self._problems:
            try:
                self._problems[key] = self._read(row)
            except RecordError as error:
                where = sample(index, prompts, completions)
                raise UserError(f"reward {self.name} (code) could not read the tests of {where}: {error}.") from error
            if len(self._problems) > REMEMBERED:
                self._problems.popitem(last=False)
        return self._problems[key]

    def _read(self, row: dict[str, Any]) -> Problem | None:
        try:
            problem = read_record(row, self._config.format, self._config.tests)
        except NoTestsError:
            return None
        if isinstance(problem.tests, Script) and not self._config.allow_forgeable:
            raise RecordError(
                "found a `script`, whose verdict the program can forge; use `calls`, `stdio` or `test`, or set "
                "`allow_forgeable: true`"
            )
        return problem


def open_verifier(name: str, config: CodeReward) -> CodeVerifier:
    """Open the verifier that the code reward `name` configures.

    Raises:
        UserError: its `url` is not a valid URL.
        SandboxUnavailableError: the sandbox is not available on this machine.
    """
    limits = Limits(cpu=config.cpu, case_cpu=min(config.case_cpu, config.cpu), memory=config.memory << 20)
    try:
        return CodeVerifier(config.backend, limits=limits, url=config.url)
    except ValueError as error:
        raise UserError(f"reward {name} (code): {error}.") from error
