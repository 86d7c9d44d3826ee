"""`gemsmith.verify_math` and `verify_code`: one and many, every form of tests, and no process left behind."""

import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest

import gemsmith
from tests.messages import assert_facts, raises_facts

RIGHT, WRONG, UNPARSABLE = gemsmith.Status.RIGHT, gemsmith.Status.WRONG, gemsmith.Status.UNPARSABLE
DOUBLE = "```python\ndef double(x):\n    return 2 * x\n```"
ASSERTS = ["assert double(3) == 6", "assert double('a') == 'aa'"]
HUMANEVAL = {"prompt": "def double(x):\n", "entry_point": "double", "test": "def check(f): assert f(2) == 4"}


def children() -> list[psutil.Process]:
    return psutil.Process(os.getpid()).children(recursive=True)


def test_one_completion_gives_one_verdict():
    verdict = gemsmith.verify_math("The answer is 72.", "#### 72")
    assert (verdict.score, verdict.status, verdict.answer) == (1.0, RIGHT, "72")
    assert gemsmith.verify_math("7", 8).status is WRONG


def test_many_completions_give_verdicts_in_order_and_leave_no_process():
    before = children()
    completions = [r"\boxed{x^2 + 2x + 1}", "71", "who knows", r"\boxed{0.5}"]
    verdicts = gemsmith.verify_math(completions, ["(x + 1)^2", 72, "3", r"\frac{1}{2}"], workers=1)
    assert [verdict.status for verdict in verdicts] == [RIGHT, WRONG, UNPARSABLE, RIGHT]
    assert "math-verify" in verdicts[0].reason  # a worker process compared these
    assert children() == before
    assert gemsmith.verify_math([], []) == gemsmith.verify_code([], []) == []


@pytest.mark.parametrize(
    ("completion", "tests"),
    [
        (DOUBLE, ASSERTS),
        (DOUBLE, "assert double(3) == 6"),
        (DOUBLE, {"function": "double", "calls": [[[3], 6]]}),
        (DOUBLE, {"test": "assert double(double(1)) == 4", "names": ["double"]}),
        (DOUBLE, {"tests": {"function": "double", "calls": [[[3], 6]]}, "difficulty": "easy"}),
        (DOUBLE, {"text": "Double it.", "test_list": ASSERTS}),
        ("    return x + x\n", HUMANEVAL),
        ("print(2 * int(input()))", {"stdio": [["3\n", "6"]]}),
        ("print(2 * int(input()))", {"input_output": '{"inputs": ["2"], "outputs": ["4"]}'}),
    ],
)
def test_tests_may_be_asserts_a_record_or_the_plain_form(completion: str, tests: Any):
    verdict = gemsmith.verify_code(completion, tests)
    assert (verdict.status, verdict.score) == (RIGHT, 1.0), verdict.reason


def test_many_programs_are_judged_each_by_its_own_tests_from_any_thread():
    before, found = children(), []
    completions = [DOUBLE, "def double(x): return x", "```python\nprint("]

    def work() -> None:
        found.append(gemsmith.verify_code(completions, [ASSERTS] * 3, workers=2))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[verdict.status for verdict in verdicts] for verdicts in found] == [[RIGHT, WRONG, UNPARSABLE]] * 2
    assert found[0][0].evidence.cases == (True, True)
    assert children() == before


def test_a_fault_of_the_machine_has_no_score():
    one, other = gemsmith.verify_code(
        [DOUBLE, "```python\nprint("], [ASSERTS] * 2, backend="http", url="http://127.0.0.1:9"
    )
    assert one.status is gemsmith.Status.INFRASTRUCTURE_FAULT and math.isnan(one.score)
    assert (other.status, other.score) == (UNPARSABLE, 0.0)


def test_script_tests_must_be_asked_for():
    tests = {"script": "assert double(1) == 2"}
    with raises_facts(gemsmith.UserError, "tests", "`script`", "allow_forgeable=True"):
        gemsmith.verify_code(DOUBLE, tests)
    verdict = gemsmith.verify_code(DOUBLE, tests, allow_forgeable=True)
    assert verdict.status is RIGHT and verdict.evidence is not None and verdict.evidence.forgeable


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        (lambda: gemsmith.verify_math(["1", "2"], ["1"]), ("answer", "1 answers", "2 completions")),
        (lambda: gemsmith.verify_math(["1"], "1"), ("answer", "'1'", "list")),
        (
            lambda: gemsmith.verify_math("1", ["1"]),
            ("answer", "a list", "text"),
        ),
        (lambda: gemsmith.verify_math(["1"], [None]), ("answer[0]", "nothing", "answer")),
        (lambda: gemsmith.verify_math(3, "3"), ("completion", 3, "list of texts")),
        (lambda: gemsmith.verify_math(["1", 2], [1, 2]), ("completion[1]", 2, "text")),
        (lambda: gemsmith.verify_math("1", 1, time_limit=0), ("time_limit", "found 0", "above 0")),
        (
            lambda: gemsmith.verify_code([DOUBLE] * 2, ASSERTS),
            ("tests[0]", "text", "completion[0]", "`[tests] * len(completions)`"),
        ),
        (lambda: gemsmith.verify_code(DOUBLE, []), ("tests", "empty list", "assert")),
        (
            lambda: gemsmith.verify_code([DOUBLE], [{"answer": 3}]),
            ("tests[0]", "fields answer"),
        ),
        (lambda: gemsmith.verify_code(DOUBLE, ["assert double("]), ("tests", "`test_list`", "Python")),
        (lambda: gemsmith.verify_code(DOUBLE, ASSERTS, backend="docker"), ("backend", "'docker'")),
    ],
)
def test_a_wrong_argument_is_named(call: Callable[[], object], facts: tuple[object, ...]):
    with raises_facts(gemsmith.UserError, *facts) as caught:
        call()
    assert str(caught.value).startswith(f"{facts[0]}: ")


def test_an_ending_interpreter_neither_hangs_nor_leaves_a_traceback():
    """One call is at work in a thread when the program ends, and one is made while the interpreter ends."""
    code = f"""
import atexit, threading, time, gemsmith
def late():
    try:
        gemsmith.verify_code({DOUBLE!r}, {ASSERTS!r})
    except gemsmith.RunError as error:
        print(error)
atexit.register(late)
gemsmith.verify_code({DOUBLE!r}, {ASSERTS!r})
begun = threading.Event()
def endless():
    begun.set()
    gemsmith.verify_code("while True: pass", ["assert f(1)"])
threading.Thread(target=endless, daemon=True).start()
begun.wait()
time.sleep(0.5)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert_facts(done.stdout, "sandbox", "verify_code")
