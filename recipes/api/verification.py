"""Verify one or many completions from Python: `verify_math` and `verify_code`. Imports no torch."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.sandboxes.verdict import Status, Verdict

if TYPE_CHECKING:
    from gemsmith.sandboxes.code.records import Problem

Answer = str | int | float
Tests = str | Sequence[str] | Mapping[str, Any]
"""Assert statements, a record of HumanEval, MBPP or APPS, or tests in gemsmith's own form."""

PLAIN_FORMS = ("calls", "stdio", "script")


@overload
def verify_math(  # type: ignore[overload-overlap]  # a str is a Sequence[str] too, but means one completion
    completion: str, answer: Answer, *, workers: int | None = None, time_limit: float = 5.0
) -> Verdict: ...


@overload
def verify_math(
    completion: Sequence[str], answer: Sequence[Answer], *, workers: int | None = None, time_limit: float = 5.0
) -> list[Verdict]: ...


def verify_math(
    completion: str | Sequence[str],
    answer: Answer | Sequence[Answer],
    *,
    workers: int | None = None,
    time_limit: float = 5.0,
) -> Verdict | list[Verdict]:
    """Check whether the final answer of a completion equals the true answer.

    With a list of completions and a list of answers, the pairs are verified in parallel by worker processes, which end
    with the call. Pass many at once if you can: starting a worker takes about a second.

    Args:
        completion: a model's completion, or a list of completions.
        answer: the true answer, such as 72, "72", "\\\\frac{1}{2}" or "... #### 72"; or a list with one for each
            completion.
        workers: maximum number of worker processes. Default: one per core, at most 4.
        time_limit: maximum time of one comparison, in seconds.

    Returns:
        A verdict, or a list of verdicts in the order of the completions. If the machine failed twice (not the
        completion), `status` is INFRASTRUCTURE_FAULT and `score` is NaN.

    Raises:
        UserError: an argument is invalid.
    """
    from gemsmith.sandboxes.mathematics.verifier import MathVerifier

    _check_positive(workers=workers, time_limit=time_limit)
    if isinstance(completion, str):
        completions, answers = [completion], [_answer(answer, "answer")]
    else:
        completions = _completions(completion)
        given = _one_each(completions, answer, "answer", "answers")
        answers = [_answer(item, f"answer[{index}]") for index, item in enumerate(given)]
    with MathVerifier(workers, time_limit) as verifier:
        verdicts = [_honest(verdict) for verdict in verifier.verify(completions, answers)]
    return verdicts[0] if isinstance(completion, str) else verdicts


@overload
def verify_code(  # type: ignore[overload-overlap]
    completion: str,
    tests: Tests,
    *,
    workers: int | None = None,
    backend: str = "auto",
    url: str | None = None,
    cpu: float = 10.0,
    memory: int = 512,
    allow_forgeable: bool = False,
) -> Verdict: ...


@overload
def verify_code(
    completion: Sequence[str],
    tests: Sequence[Tests],
    *,
    workers: int | None = None,
    backend: str = "auto",
    url: str | None = None,
    cpu: float = 10.0,
    memory: int = 512,
    allow_forgeable: bool = False,
) -> list[Verdict]: ...


def verify_code(
    completion: str | Sequence[str],
    tests: Tests | Sequence[Tests],
    *,
    workers: int | None = None,
    backend: str = "auto",
    url: str | None = None,
    cpu: float = 10.0,
    memory: int = 512,
    allow_forgeable: bool = False,
) -> Verdict | list[Verdict]:
    """Run the program of a completion in the sandbox, and check whether it passes its tests.

    With a list of completions and a list of tests, the programs are run in parallel. The sandbox ends with the call.

    Args:
        completion: a model's completion, or a list of completions. The program is the last closed fenced block, or the
            whole text if there is no fence.
        tests: a list of assert statements; or a record of HumanEval, MBPP or APPS; or tests in gemsmith's own form,
            such as {"function": "double", "calls": [[[3], 6]]}. For many completions, a list with one of these for
            each; to use the same tests for all, pass `[tests] * len(completions)`.
        workers: programs judged in parallel. Default: one per core.
        backend: "auto", "bubblewrap", "unshare", "landlock", "http" or "unsafe".
        url: address of the server, for the backend "http".
        cpu: CPU seconds per program.
        memory: address space per program, in MiB.
        allow_forgeable: accept `script` tests, whose verdict a program can forge.

    Returns:
        A verdict, or a list of verdicts in the order of the completions; `verdict.evidence` has the result of each
        case. If the machine failed twice (not the program), `status` is INFRASTRUCTURE_FAULT and `score` is NaN.

    Raises:
        UserError: an argument is invalid.
        RunError: no sandbox works on this machine (the message says how to get one), or the interpreter is shutting
            down.
    """
    from gemsmith.sandboxes.code.jobs import Limits
    from gemsmith.sandboxes.code.verifier import CodeVerifier

    _check_positive(workers=workers, cpu=cpu, memory=memory)
    if isinstance(completion, str):
        completions, problems = [completion], [_problem(tests, "tests", allow_forgeable)]
    else:
        completions = _completions(completion)
        given = _one_each(completions, tests, "tests", "tests")
        problems = []
        for index, item in enumerate(given):
            if isinstance(item, str):
                raise UserError(
                    f"tests[{index}]: found text, expected the tests of completion[{index}]: a list of assert "
                    "statements or a record; to use the same tests for all, pass `[tests] * len(completions)`"
                )
            problems.append(_problem(item, f"tests[{index}]", allow_forgeable))
    if not completions:
        return []
    limits = Limits(cpu=cpu, case_cpu=cpu, memory=memory << 20)
    at_once = min(workers or os.cpu_count() or 1, len(completions))
    try:
        opened = CodeVerifier(backend, at_once, limits, url)
    except ValueError as error:
        raise UserError(f"backend: {error}") from error
    try:
        with opened as verifier:
            verdicts = [_honest(verdict) for verdict in verifier.verify(completions, problems)]
    except RuntimeError as error:  # no thread can be started: the interpreter is shutting down, or a limit is reached
        raise RunError(f"the sandbox cannot start ({error}); call verify_code before your program ends") from error
    return verdicts[0] if isinstance(completion, str) else verdicts


def _completions(completions: object) -> list[str]:
    if isinstance(completions, Mapping) or not isinstance(completions, Sequence):
        raise UserError(f"completion: found {_shown(completions)}, expected text or a list of texts")
    for index, text in enumerate(completions):
        if not isinstance(text, str):
            raise UserError(f"completion[{index}]: found {_shown(text)}, expected text")
    return list(completions)


def _one_each(completions: Sequence[str], given: object, name: str, plural: str) -> Sequence[Any]:
    """Return `given` as a list after checking that it has one item for each completion."""
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise UserError(f"{name}: found {_shown(given)} for a list of completions, expected a list with one for each")
    if len(given) != len(completions):
        raise UserError(
            f"{name}: found {len(given)} {plural} for {len(completions)} completions, expected one for each"
        )
    return given


def _answer(answer: object, name: str) -> str:
    if isinstance(answer, bool) or not isinstance(answer, str | int | float) or answer == "":
        raise UserError(f"{name}: found {_shown(answer)}, expected the true answer as text or a number")
    return str(answer)


def _problem(tests: object, name: str, allow_forgeable: bool) -> "Problem":
    """Return the tests of one completion in the form that the verifier takes."""
    from gemsmith.sandboxes.code.jobs import Script
    from gemsmith.sandboxes.code.records import RecordError, read_record

    if isinstance(tests, str):
        record: Mapping[str, Any] = {"test_list": [tests]}
    elif isinstance(tests, Mapping):
        alone = "test" in tests and not {"prompt", "entry_point"} & tests.keys()
        plain = "tests" not in tests and (alone or any(form in tests for form in PLAIN_FORMS))
        record = {"tests": tests} if plain else tests
    elif isinstance(tests, Sequence) and tests and all(isinstance(text, str) for text in tests):
        record = {"test_list": list(tests)}
    else:
        raise UserError(
            f"{name}: found {_shown(tests)}, expected a list of assert statements, a record of HumanEval, MBPP or "
            'APPS, or tests in gemsmith\'s own form, such as {"function": "f", "calls": [[[arguments], expected]]}'
        )
    try:
        problem = read_record(record)
    except RecordError as error:
        raise UserError(f"{name}: {error}") from error
    if isinstance(problem.tests, Script) and not allow_forgeable:
        raise UserError(
            f"{name}: found `script` tests, whose verdict a program can forge; use another form, or pass "
            "allow_forgeable=True"
        )
    return problem


def _honest(verdict: Verdict) -> Verdict:
    """Set the score to NaN if the machine failed, so that it cannot be taken for a wrong answer."""
    return replace(verdict, score=math.nan) if verdict.status is Status.INFRASTRUCTURE_FAULT else verdict


def _check_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value > 0:
            raise UserError(f"{name}: found {value}, expected a number above 0")


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    return "nothing" if value is None else "a mapping" if isinstance(value, Mapping) else repr(value)[:40]
