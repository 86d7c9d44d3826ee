import threading
from collections.abc import Iterator

import pytest

from gemsmith.sandboxes.code.jobs import Limits
from gemsmith.sandboxes.code.records import Problem, read_record
from gemsmith.sandboxes.code.verifier import CodeVerifier
from gemsmith.sandboxes.verdict import OverdueError, Status

DOUBLE = read_record({"tests": {"function": "f", "calls": [[[1], 2], [[5], 10], [[0], 0]]}})
ECHO = read_record({"tests": {"stdio": [["a\n", "a"], ["b\n", "b"]]}})
RIGHT = "```python\ndef f(x):\n    return 2 * x\n```"
FOREVER = "def f(x):\n    while True: pass\n"


@pytest.fixture(scope="module")
def verifier() -> Iterator[CodeVerifier]:
    with CodeVerifier(workers=2, limits=Limits(cpu=1.0, case_cpu=0.5)) as verifier:
        yield verifier


@pytest.mark.parametrize(
    ("completion", "problem", "status"),
    [
        (RIGHT, DOUBLE, Status.RIGHT),
        ("print(input())", ECHO, Status.RIGHT),
        (RIGHT.replace("2", "3"), DOUBLE, Status.WRONG),
        ("def f(x): raise ValueError", DOUBLE, Status.WRONG),
        ("def g(x): return 2 * x", DOUBLE, Status.WRONG),
        ("def f(x) return 2 * x", DOUBLE, Status.UNPARSABLE),
        ("```python\ndef f(x):\n    return 2", DOUBLE, Status.UNPARSABLE),
        ("", DOUBLE, Status.UNPARSABLE),
        (FOREVER, DOUBLE, Status.TIMEOUT),
        ("def f(x): return [0] * 10 ** 9", DOUBLE, Status.OUT_OF_MEMORY),
    ],
)
def test_how_a_completion_is_judged(verifier: CodeVerifier, completion: str, problem: Problem, status: Status):
    (verdict,) = verifier.verify([completion], [problem])
    assert (verdict.status, verdict.score) == (status, float(status is Status.RIGHT)), verdict.reason


def test_the_answer_is_the_program_and_the_evidence_its_cases(verifier: CodeVerifier):
    right, half, none = verifier.verify([RIGHT, "def f(x): return x * x + x", "<think>"], [DOUBLE] * 3)
    assert right.answer == "def f(x):\n    return 2 * x\n"
    assert right.evidence is not None and right.evidence.cases == (True, True, True)
    assert half.evidence is not None and half.evidence.cases == (True, False, True)
    assert (none.answer, none.evidence) == (None, None)


def test_verdicts_come_in_order(verifier: CodeVerifier):
    programs = [f"def f(x): return 2 * x + {number % 2} * (x == 5)  # {number}" for number in range(20)]
    assert [verdict.score for verdict in verifier.verify(programs, [DOUBLE] * 20)] == [1.0, 0.0] * 10


def test_a_completion_that_was_cut_off_has_no_program(verifier: CodeVerifier):
    cut, whole = verifier.verify([RIGHT, RIGHT], [DOUBLE, DOUBLE], finished=[False, True])
    assert (cut.status, cut.reason) == (Status.UNPARSABLE, "cut off before its end")
    assert whole.status is Status.RIGHT


def test_a_verdict_is_remembered_for_its_tests_and_a_timeout_is_not(verifier: CodeVerifier):
    program, other = "def f(x): return x + x", DOUBLE.first(1)
    assert other is not None
    assert verifier.verify([program], [DOUBLE])[0].seconds > 0
    assert verifier.verify([program, f"So:\n```\n{program}```\n"], [DOUBLE] * 2)[0].seconds == 0
    assert verifier.verify([program], [other])[0].seconds > 0
    for _ in range(2):
        assert verifier.verify([FOREVER], [DOUBLE])[0].seconds > 0.3


def test_equal_programs_of_one_call_are_run_once(verifier: CodeVerifier):
    program = "def f(x): return 2 * x  # once"
    found = verifier.verify([program] * 50, [DOUBLE] * 50)
    assert len({id(verdict) for verdict in found}) == 1


def test_a_call_that_is_late_as_a_whole_names_a_sample(verifier: CodeVerifier):
    with pytest.raises(OverdueError) as caught:
        verifier.verify([RIGHT, "", *(f"{FOREVER}# {n}" for n in range(40))], [DOUBLE] * 42, within=1.5)
    assert caught.value.index >= 2 and 1 <= caught.value.missing <= 40
    assert verifier.verify(["def f(x): return x * 2"], [DOUBLE])[0].status is Status.RIGHT


def test_any_thread_may_ask(verifier: CodeVerifier):
    found: list[Status] = []
    threads = [
        threading.Thread(
            target=lambda number=number: found.append(
                verifier.verify([f"def f(x): return x * 2  # {number}"], [DOUBLE])[0].status
            )
        )
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Status.RIGHT] * 6


def test_lists_of_different_length_are_refused(verifier: CodeVerifier):
    with pytest.raises(ValueError):
        verifier.verify(["x"], [])
