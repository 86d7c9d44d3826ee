import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gemsmith.sandboxes.code.jobs import CallCase, Calls, Check, Limits, Script, Stdio, StdioCase
from gemsmith.sandboxes.code.records import NoTestsError, RecordError, read_record
from gemsmith.sandboxes.code.verifier import CodeVerifier
from gemsmith.sandboxes.verdict import Status

DATA = Path(__file__).parents[3].parent / "shared" / "data"
PATIENT = Limits(cpu=40.0, case_cpu=40.0)  # MBPP 123 computes for about 9 s, more on a slower machine
HUMANEVAL = {
    "prompt": "import math\n\ndef half(x):\n    return x / 2\n\ndef root(x: float) -> float:\n    '''A root.'''\n",
    "entry_point": "root",
    "canonical_solution": "    return math.sqrt(x)\n",
    "test": "M = {}\n\ndef check(candidate):\n    assert candidate(4.0) == 2.0\n    assert candidate(0.0) == 0.0\n",
}
needs_humaneval = pytest.mark.skipif(
    not (DATA / "humaneval").is_dir(), reason="shared/data/humaneval is not on this machine"
)
needs_mbpp = pytest.mark.skipif(not (DATA / "mbpp").is_dir(), reason="shared/data/mbpp is not on this machine")


@pytest.fixture(scope="module")
def verifier() -> Iterator[CodeVerifier]:
    with CodeVerifier(limits=PATIENT) as verifier:
        yield verifier


def statuses(verifier: CodeVerifier, completions: list[str], rows: list[dict[str, Any]]) -> list[Status]:
    return [verdict.status for verdict in verifier.verify(completions, [read_record(row) for row in rows])]


def humaneval() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / "humaneval" / "HumanEval.jsonl").open()]


def test_a_humaneval_record_becomes_calls():
    problem = read_record({**HUMANEVAL, "answer": None})
    assert problem.tests == Calls("", "root", (CallCase((4.0,), 2.0), CallCase((0.0,), 0.0)))
    assert problem.gold == "    return math.sqrt(x)\n"
    assert problem.continues is not None and problem.continues.preamble == "import math\ndef half(x):\n    return x / 2"


def test_helpers_of_the_prompt_are_the_judges_own(verifier: CodeVerifier):
    """A program that redefines the helper which its test relies on gains nothing."""
    row = {
        "prompt": "def encode(text):\n    return text[::-1]\n\ndef decode(text):\n    'Undo encode.'\n",
        "entry_point": "decode",
        "test": "def check(candidate):\n    for w in ('ab', 'cd'):\n        assert candidate(encode(w)) == w\n",
    }
    assert isinstance(read_record(row).tests, Check)
    cheat = "```python\ndef encode(text): return text\ndef decode(text): return text\n```"
    assert statuses(verifier, ["    return encode(text)\n", cheat], [row, row]) == [Status.RIGHT, Status.WRONG]


def test_an_mbpp_record_becomes_calls_or_a_check():
    plain = {"text": "...", "code": "def f(x): return x", "test_list": ["assert f(1) == 1"], "test_setup_code": ""}
    assert read_record(plain).tests == Calls("", "f", (CallCase((1,), 1),))
    more = {**plain, "challenge_test_list": ["assert f(2) == 2"]}
    assert read_record(more).tests == Calls("", "f", (CallCase((1,), 1), CallCase((2,), 2)))
    sanitized = {"code": "...", "test_list": ["assert set(f(2)) == {sys.maxsize}"], "test_imports": ["import math"]}
    check = read_record(sanitized).tests
    assert isinstance(check, Check) and check.names == ("f",) and check.test.startswith("import sys\nimport math\n")


def test_an_apps_record_with_text_becomes_stdio():
    cases = {"inputs": ["1\n2\n", ["3", "4"]], "outputs": ["3\n", ["7"]]}
    row = {"input_output": json.dumps(cases), "solutions": json.dumps(["print(1)"]), "starter_code": ""}
    problem = read_record(row)
    assert problem.tests == Stdio("", (StdioCase("1\n2\n", "3\n"), StdioCase("3\n4", "7")))
    assert problem.gold == "print(1)"


@pytest.mark.parametrize("outputs", [[[3], [7]], [3, 7]])
def test_an_apps_record_with_a_function_becomes_calls(verifier: CodeVerifier, outputs: list[Any]):
    row = {"input_output": {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": outputs}}
    assert read_record(row).tests == Calls("", "add", (CallCase((1, 2), 3), CallCase((3, 4), 7)))
    method = "class Solution:\n    def add(self, a, b):\n        return a + b\n"
    found = statuses(verifier, ["def add(a, b):\n    return a + b\n", method, method.replace("+", "-")], [row] * 3)
    assert found == [Status.RIGHT, Status.RIGHT, Status.WRONG]


@pytest.mark.parametrize("as_text", [False, True])
def test_the_plain_form(as_text: bool):
    def read(tests: dict[str, Any]) -> Any:
        return read_record({"tests": json.dumps(tests) if as_text else tests}).tests

    calls = {"function": "f", "calls": [[[1, "a"], [2]]], "tolerance": 0.1}
    assert read(calls) == Calls("", "f", (CallCase((1, "a"), [2], {}, 0.1),))
    assert read({"stdio": [["1", "2"]]}) == Stdio("", (StdioCase("1", "2"),))
    assert read({"test": "assert f(g(1)) > 2", "names": ["f"]}) == Check("", "assert f(g(1)) > 2", ("f",))
    assert read({"test": "assert f(g(1)) > 2"}) == Check("", "assert f(g(1)) > 2", ("f", "g"))
    assert read({"script": "assert f(1) == 2"}) == Script("", "assert f(1) == 2")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"tests": "{"}, "`tests` is not valid JSON"),
        ({"tests": "[]"}, "`tests` must be an object"),
        ({"tests": {}}, "one of `calls`, `stdio`, `test` and `script`"),
        ({"tests": {"calls": [], "function": "f"}}, "`calls` must be a list of"),
        ({"tests": {"calls": [[1, 2]], "function": "f"}}, "must be a list of arguments"),
        ({"tests": {"calls": [[[1], 2]]}}, "`function` must be text, found nothing"),
        *(
            ({"tests": {"calls": [[[1], 2]], "function": "f", "tolerance": bad}}, "`tolerance` must be a finite number")
            for bad in ("abc", -1, math.inf, math.nan, True, None, [1])
        ),
        ({"tests": {"stdio": [["1", 2]]}}, "must be text, found '2'"),
        ({"tests": {"test": "assert ("}}, "`test` is not valid Python"),
        ({"test_list": "assert f(1) == 1"}, "`test_list` must be a list of texts"),
        ({"test_list": ["assert f(1 =="]}, "`test_list` is not valid Python"),
        ({**HUMANEVAL, "test": 3}, "`test` must be text"),
        ({"input_output": '{"inputs": [], "outputs": []}'}, "two lists of one length, not empty"),
        ({"input_output": {"inputs": [3], "outputs": [3], "fn_name": "f"}}, "must be a list of arguments"),
        ({"input_output": {"inputs": [3], "outputs": [3], "fn_name": "f()"}}, "must be the name of a function"),
    ],
)
def test_a_record_that_is_not_as_it_should_be_says_which_field(row: dict[str, Any], words: str):
    with pytest.raises(RecordError) as caught:
        read_record(row)
    assert words in str(caught.value)


def test_a_record_without_tests_is_told_apart():
    for row in ({}, {"prompt": "p", "answer": "a"}, {"tests": None}):
        with pytest.raises(NoTestsError, match="expected HumanEval's"):
            read_record(row)
    with pytest.raises(NoTestsError, match="the format mbpp"):
        read_record(HUMANEVAL, "mbpp")
    assert read_record({"checks": {"stdio": [["", ""]]}}, tests="checks").tests == Stdio("", (StdioCase("", ""),))


def test_the_first_cases_of_a_problem_are_a_problem():
    problem = read_record(HUMANEVAL)
    first = problem.first(1)
    assert first is not None and isinstance(first.tests, Calls) and len(first.tests.cases) == 1
    assert read_record({"tests": {"test": "assert f(1)"}}).first(1) is None
    assert problem.key == read_record(HUMANEVAL).key != first.key


@needs_humaneval
def test_every_reference_of_humaneval_is_right(verifier: CodeVerifier):
    rows = humaneval()
    assert len(rows) == 164
    problems = [read_record(row) for row in rows]
    assert Counter(type(problem.tests).__name__ for problem in problems) == {"Calls": 156, "Check": 8}
    verdicts = verifier.verify([str(problem.gold) for problem in problems], problems)
    assert [row["task_id"] for row, found in zip(rows, verdicts, strict=True) if found.status is not Status.RIGHT] == []


ALWAYS_EQUAL = """\
    class Always(int):
        def __eq__(self, other): return True
        __ne__ = lambda self, other: False
        __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__
        __hash__ = int.__hash__
        __sub__ = __rsub__ = __abs__ = lambda self, *other: Always(0)
        __iter__ = lambda self: iter([])
    return Always(1)
"""
FRAMES = """\
    import sys
    frame = sys._getframe()
    while frame:
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            if isinstance(value, list):
                value.append("passed")
            for name in ("expected", "wanted", "cases", "result", "test"):
                if isinstance(value, dict) and name in value:
                    return value[name]
        frame = frame.f_back
"""
PRINTS = """\
    import os, sys
    for text in ("passed", "PASSED", "OK", "True", "1 passed in 0.01s", '{"score": 1.0}'):
        print(text)
        print(text, file=sys.stderr)
    for number in range(3, 10):
        try:
            os.write(number, b"passed\\n")
        except OSError:
            pass
"""
CHEATS = {
    "exit": "    import sys\n    sys.exit(0)\n",
    "exit at import": "    pass\nimport sys\nsys.exit(0)\n",
    "os._exit": "    import os\n    os._exit(0)\n",
    "os._exit at import": "    pass\nimport os\nos._exit(0)\n",
    "always equal": ALWAYS_EQUAL,
    "frames": FRAMES,
    "markers": PRINTS,
    "return None": "    return None\n",
}


@needs_humaneval
@pytest.mark.parametrize("cheat", CHEATS)
def test_no_humaneval_problem_is_fooled(verifier: CodeVerifier, cheat: str):
    rows = humaneval()
    found = statuses(verifier, [CHEATS[cheat]] * len(rows), rows)
    assert [row["task_id"] for row, status in zip(rows, found, strict=True) if status is Status.RIGHT] == []
    assert Status.INFRASTRUCTURE_FAULT not in found


@needs_mbpp
@pytest.mark.parametrize(("name", "count"), [("sanitized-mbpp.json", 427), ("mbpp.jsonl", 974)])
def test_every_reference_of_mbpp_is_right(verifier: CodeVerifier, name: str, count: int):
    text = (DATA / "mbpp" / name).read_text()
    rows = json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]
    problems = [read_record(row) for row in rows]
    verdicts = verifier.verify([str(problem.gold) for problem in problems], problems)
    assert len(verdicts) == count
    assert [row["task_id"] for row, found in zip(rows, verdicts, strict=True) if found.status is not Status.RIGHT] == []


def test_arithmetic_of_a_test_that_would_take_long_is_left_to_the_sandbox():
    factors = " * ".join(["10000**10000"] * 200)
    begun = time.monotonic()
    problem = read_record({"test_list": [f"assert f(1) == {factors}"], "text": "x", "code": "def f(x): return x"})
    assert time.monotonic() - begun < 1 and not isinstance(problem.tests, Calls)
    assert read_record({"test_list": ["assert f(1) == 2**100"], "text": "x", "code": "x"}).tests == Calls(
        "", "f", (CallCase((1,), 2**100),)
    )
