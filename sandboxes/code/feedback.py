"""Execution feedback over several turns, as in RLEF (Gehring et al. 2024, arXiv 2410.02089).

A program that fails a public test gets feedback about it, and the policy may write it again. The final score uses all
tests, public and private, so that copying the expected outputs of the public ones gains nothing. This module knows no
policy: an episode receives one completion after another.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from gemsmith.sandboxes.code.jobs import CallCase, Calls, Stdio
from gemsmith.sandboxes.code.records import Problem
from gemsmith.sandboxes.verdict import Status, Verdict

PASSED, FAILED, NO_PROGRAM = 1.0, -1.0, -0.2
"""Rewards of the paper: the last program passes all tests; it does not; an earlier turn has no program."""
SHOWN_CASES = 5
LONGEST_LINE = 300
FORMAT_REMINDER = "Write the whole program again, in one ```python block."
_MARK = "\x1e"
_PRINTING = "_printing"
_PRINTING_SOURCE = """

def {printing}(*arguments, **keywords):
    try:
        value = {function}(*arguments, **keywords)
        print("\\n\\x1ereturned", ascii(value)[:{longest}])
        return value
    except BaseException as error:
        print("\\n\\x1eraised", ascii(error)[:{longest}])
        raise
"""
_CONTROL_TOKEN = re.compile(r"<(?=[a-z_0-9]+>)")
_ENDINGS = {
    Status.TIMEOUT: "took too long",
    Status.OUT_OF_MEMORY: "ran out of memory",
    Status.CRASHED: "ended the program",
}


@dataclass(frozen=True)
class TurnOutcome:
    """Result of a turn.

    Attributes:
        reward: reward of this turn; None if the machine, not the completion, failed: leave the episode out.
        feedback: text of the next user turn; None if the episode has ended.
        verdict: verdict on the tests that decided.
    """

    reward: float | None
    feedback: str | None
    verdict: Verdict

    @property
    def ended(self) -> bool:
        """Return True if there is no further turn."""
        return self.feedback is None


@dataclass(frozen=True)
class Episode:
    """One problem over several turns.

    Attributes:
        whole: all tests, which score the last program.
        public: tests used for feedback; None for a single turn.
        turns: maximum number of programs (paper: 3).
    """

    whole: Problem
    public: Problem | None
    turns: int = 3

    def turn(self, number: int, completion: str, verify: Callable[[str, Problem], Verdict]) -> TurnOutcome:
        """Return the result of the completion of one turn.

        The last turn is worth +1 or -1, also without a program; an earlier one is worth -0.2 without a program, and
        else 0.

        Args:
            number: number of the turn, from 0.
            completion: the policy's completion.
            verify: function that returns the verdict on a completion by some tests.
        """
        if self.public is not None and number < self.turns - 1:
            verdict = verify(completion, with_printed_results(self.public))
            if verdict.status is Status.INFRASTRUCTURE_FAULT:
                return TurnOutcome(None, None, verdict)
            if verdict.status is not Status.RIGHT:
                reward = NO_PROGRAM if verdict.status is Status.UNPARSABLE else 0.0
                return TurnOutcome(reward, format_feedback(verdict, self.public), verdict)
        verdict = verify(completion, self.whole)
        if verdict.status is Status.INFRASTRUCTURE_FAULT:
            return TurnOutcome(None, None, verdict)
        return TurnOutcome(PASSED if verdict.status is Status.RIGHT else FAILED, None, verdict)


def with_printed_results(problem: Problem) -> Problem:
    """Return the same tests for a program that also prints its return values, for feedback; the verdict ignores
    them.
    """
    if not isinstance(problem.tests, Calls):
        return problem
    source = _PRINTING_SOURCE.format(printing=_PRINTING, function=problem.tests.function, longest=LONGEST_LINE)
    return replace(problem, tests=replace(problem.tests, function=_PRINTING), suffix=problem.suffix + source)


def format_feedback(verdict: Verdict, problem: Problem) -> str:
    """Return the feedback on a program that did not pass: which tests failed and how, and what to write next.

    Values are included if the tests are `with_printed_results`. They come from the program itself, are cut, and cannot
    contain a chat's control tokens.
    """
    if verdict.status is Status.UNPARSABLE and verdict.answer is None:
        return f"There is no program in your answer. {FORMAT_REMINDER}"
    if verdict.status is Status.UNPARSABLE:
        return f"Your program is not valid Python: {_plain(verdict.reason, LONGEST_LINE)}\n{FORMAT_REMINDER}"
    return "\n".join(["Your program does not pass these tests:", *_failed_cases(verdict, problem), FORMAT_REMINDER])


def _failed_cases(verdict: Verdict, problem: Problem) -> list[str]:
    """Return one line for each public case that failed, up to a limit; the case that ended the program includes how."""
    cases = _cases(problem)
    if not cases:
        return [f"- {_plain(verdict.reason, LONGEST_LINE)}"]
    passed = verdict.evidence.cases if verdict.evidence is not None else ()
    outcomes = _outcomes(verdict)
    lines = []
    for index, (call, wanted) in enumerate(cases):
        if index < len(passed) and passed[index]:
            continue
        ended = index >= len(passed) or (index == len(passed) - 1 and verdict.status in _ENDINGS)
        how = _ENDINGS.get(verdict.status) if ended else None
        if how is None:
            how = ", ".join([_plain(wanted, LONGEST_LINE), *outcomes[index : index + 1]])
        lines.append(f"- {_plain(call, LONGEST_LINE)}: {how}")
        if index >= len(passed) or len(lines) == SHOWN_CASES:
            break
    return lines


def _cases(problem: Problem) -> list[tuple[str, str]]:
    """Yield input and expected value of each case; none if the test is one piece of code."""
    tests = problem.tests
    if isinstance(tests, Stdio):
        return [(f"for the input {case.stdin!r}", f"expected the output {case.expected!r}") for case in tests.cases]
    if not isinstance(tests, Calls):
        return []
    calls = problem.shown or [_call(problem.functions[0], case) for case in tests.cases]
    return [(call, f"expected {case.expected!r}") for call, case in zip(calls, tests.cases, strict=False)]


def _call(function: str, case: CallCase) -> str:
    given = [*map(repr, case.arguments), *(f"{name}={value!r}" for name, value in case.keywords.items())]
    return f"{function}({', '.join(given)})"


def _outcomes(verdict: Verdict) -> list[str]:
    """Return the result of each call as the program printed it: "returned 3", "raised ValueError('no')"."""
    if verdict.evidence is None:
        return []
    lines = verdict.evidence.stdout.decode(errors="replace").split("\n")
    return [_plain(line[1:], LONGEST_LINE) for line in lines if line.startswith(_MARK)]


def _plain(text: str, longest: int) -> str:
    """Return a text without control characters and control tokens, shortened in the middle if it is long."""
    kept = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
    kept = _CONTROL_TOKEN.sub("< ", kept)
    return kept if len(kept) <= longest else f"{kept[: longest // 2]} ... {kept[-longest // 2 :]}"
