"""The code reward: 1 where the completion's program passes the tests of its row, else 0; or the share it passes."""

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

REMEMBERED = 4096
OF_THE_COMPLETION = ("finished", "completion_ids")
"""Columns that differ between completions of one row."""


class Code:
    """Verdicts of `gemsmith.sandboxes.code.verifier` as rewards.

    A completion that was cut off before its end (`finished` is False, where there is such a column) has no program, and
    is wrong. None where a row has no tests, and where the sandbox itself failed twice (an infrastructure fault): that
    is said and counted in `faults`, never scored 0.
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
        """Completions so far that could not be judged through no fault of their own."""
        return self._verdicts.faults

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """See `Reward.score`."""
        found = self.problems(prompts, completions, columns)
        problems = {index: problem for index, problem in enumerate(found) if problem is not None}
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
        """The tests of each row, None where it has none.

        Raises:
            UserError: a row's tests cannot be read, or no row so far had any.
        """
        found = [self._problem(index, prompts, completions, columns) for index in range(len(prompts))]
        self._seen_tests = self._seen_tests or any(problem is not None for problem in found)
        if prompts and not self._seen_tests:
            raise UserError(
                f"reward {self.name} (code) found no tests in any row of the first batch, which has the columns "
                f"{', '.join(sorted(columns))}; name those with the tests in the data's `columns`, and see `format`."
            )
        return found

    @property
    def programs_at_once(self) -> int:
        """How many verdicts are worth asking for at once."""
        return self._verifier.workers

    def verdict(self, completion: str, problem: Problem, finished: bool = True) -> Verdict:
        """One verdict, for any thread; an infrastructure fault is told by its status.

        Raises:
            RunError: it took longer than the reward's time limit.
        """
        limit = self._config.time_limit
        try:
            return self._verifier.verify([completion], [problem], within=limit, finished=[finished])[0]
        except OverdueError as error:
            raise RunError(
                f"reward {self.name} (code) was not done with one program within its time_limit of {limit:g} s; raise "
                "the reward's `time_limit`."
            ) from error

    def close(self) -> None:
        """See `Reward.close`."""
        self._verifier.close()

    def _score(self, verdict: Verdict, problem: Problem) -> float:
        if not self._config.partial or verdict.evidence is None or not isinstance(problem.tests, Stdio | Calls):
            return verdict.score
        return sum(verdict.evidence.cases) / len(problem.tests.cases)

    def _problem(self, index: int, prompts: list[str], completions: list[str], columns: Columns) -> Problem | None:
        """The problem of a row, None where it has no tests; rows of one problem are read once."""
        own = {name: values[index] for name, values in columns.items() if name not in OF_THE_COMPLETION}
        row = {name: value for name, value in own.items() if value not in (None, "")}
        key = repr(row)
        if key not in self._problems:
            try:
                self._problems[key] = self._read(row)
            except RecordError as error:
                where = sample(index, prompts, completions)
                raise UserError(f"reward {self.name} (code) cannot read the tests of {where}: {error}.") from error
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
                "they are a `script`, whose verdict the program itself can forge; use `calls`, `stdio` or `test`, or "
                "set `allow_forgeable: true`"
            )
        return problem


def open_verifier(name: str, config: CodeReward) -> CodeVerifier:
    """The verifier that the code reward called `name` asks for.

    Raises:
        UserError: its `url` is no address.
        SandboxUnavailableError: this machine has no such sandbox.
    """
    limits = Limits(cpu=config.cpu, case_cpu=min(config.case_cpu, config.cpu), memory=config.memory << 20)
    try:
        return CodeVerifier(config.backend, limits=limits, url=config.url)
    except ValueError as error:
        raise UserError(f"reward {name} (code): {error}.") from error
