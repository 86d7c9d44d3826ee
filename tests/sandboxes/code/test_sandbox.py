import asyncio
import gc
import os
import threading
import time
from collections.abc import Iterator

import pytest

from gemsmith.sandboxes.code.jobs import CallCase, Calls, Check, Job, Limits, Script, Stdio, StdioCase
from gemsmith.sandboxes.code.sandbox import Pool, Sandbox
from gemsmith.sandboxes.code.selection import open_sandbox, probe
from gemsmith.sandboxes.verdict import OverdueError, Status

SQUARE = "def solve(n):\n    return n * n\n"
CASES = tuple(CallCase((n,), n * n) for n in range(4))
QUICK = Limits(cpu=0.3, case_cpu=0.3, wall_factor=2.0)
SLEEP = Calls("import time\ntime.sleep(60)\n", "solve", CASES)


@pytest.fixture(scope="module", params=["bubblewrap", "unshare"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    found = probe(request.param)
    if not found.works:
        pytest.skip(f"{request.param}: {found.reason}")
    with open_sandbox(request.param, workers=2) as opened:
        yield opened


def ends(sandbox: Sandbox, job: Job) -> tuple[Status, str]:
    verdict = sandbox.run(job)
    assert verdict.evidence is not None and verdict.evidence.backend == sandbox.backend
    assert verdict.score == (verdict.status is Status.RIGHT)
    return verdict.status, verdict.evidence.detail


def test_calls_are_judged_case_by_case(sandbox: Sandbox) -> None:
    verdict = sandbox.run(Calls("def solve(n):\n    print('hello')\n    return n * 2\n", "solve", CASES))
    assert (verdict.status, verdict.score) == (Status.WRONG, 0.0)
    assert verdict.evidence is not None
    assert verdict.evidence.cases == (True, False, True, False)  # 0, 2, 4, 6 against 0, 1, 4, 9
    assert verdict.evidence.stdout == b"hello\n" * 4
    assert not verdict.evidence.forgeable
    assert 0 < verdict.evidence.cpu < 1
    assert verdict.evidence.max_rss > 1 << 20
    assert "case 2 of 4" in verdict.reason
    assert sandbox.run(Calls(SQUARE, "solve", CASES)).score == 1.0


def test_arguments_of_all_kinds_reach_the_function(sandbox: Sandbox) -> None:
    source = "def solve(*given, **named):\n    return [repr(type(one)) for one in given], named\n"
    given = (1, 1.5, "s", b"b", [1], (2,), {3}, {"k": None}, True)
    kinds = [f"<class '{type(one).__name__}'>" for one in given]
    assert sandbox.run(Calls(source, "solve", (CallCase(given, (kinds, {"a": 1}), {"a": 1}),))).score == 1.0


def test_programs_read_and_write(sandbox: Sandbox) -> None:
    cases = (StdioCase("3\n", "9"), StdioCase("4", "16 \n\n"))
    assert ends(sandbox, Stdio("print(int(input()) ** 2)", cases)) == (Status.RIGHT, "pass")
    threaded = "import threading\nthreading.Thread(target=lambda: print(int(input()) ** 2)).start()\n"
    assert ends(sandbox, Stdio(threaded, cases)) == (Status.RIGHT, "pass")
    large = StdioCase("x" * 300_000, "x" * 300_000)
    assert ends(sandbox, Stdio("print(input())", (large,))) == (Status.RIGHT, "pass")
    unread = Stdio("print(1)", (StdioCase("x" * 1_000_000, "1"),))
    assert ends(sandbox, unread) == (Status.RIGHT, "pass")
    main = "if __name__ == '__main__':\n    print(9)\n"
    assert ends(sandbox, Stdio(main, (StdioCase("", "9"),))) == (Status.RIGHT, "pass")
    assert ends(sandbox, Stdio("print(9)\nprint(9)", (StdioCase("", "9"),))) == (Status.WRONG, "fail")
    assert ends(sandbox, Stdio("print(9)\nraise SystemExit(1)", (StdioCase("", "9"),))) == (Status.WRONG, "fail")


def test_a_test_runs_beside_the_program(sandbox: Sandbox) -> None:
    source = "def solve(n):\n    n.append(1)\n    return sum(n)\ndef bad(n):\n    raise ValueError('no')\n"
    test = (
        "given = [2]\nassert solve(given) == 3\nassert given == [2, 1]\n"
        "try:\n    bad(1)\nexcept ValueError as error:\n    assert str(error) == 'no'\nelse:\n    assert False\n"
    )
    assert ends(sandbox, Check(source, test, ("solve", "bad"))) == (Status.RIGHT, "pass")
    assert ends(sandbox, Check(source, "assert solve([2]) == 4\n", ("solve",))) == (Status.WRONG, "fail")
    assert ends(sandbox, Check(source, "assert True\n", ("solve",))) == (Status.WRONG, "invalid_test")
    stop = "def solve(n):\n    raise StopIteration\n"
    vacuous = "assert all(map(lambda n: solve(n) == n, range(5)))\n"
    assert ends(sandbox, Check(stop, vacuous, ("solve",))) == (Status.WRONG, "fail")


def test_a_script_is_run_and_marked_forgeable(sandbox: Sandbox) -> None:
    verdict = sandbox.run(Script("import os\nos._exit(0)\n", "assert False"))
    assert verdict.score == 1.0 and verdict.evidence is not None and verdict.evidence.forgeable
    assert sandbox.run(Script(SQUARE, "assert solve(3) == 8")).score == 0.0


@pytest.mark.parametrize(
    ("source", "status", "detail"),
    [
        ("def solve(n) return", Status.UNPARSABLE, "compile_error"),
        ("while True:\n    pass\n", Status.TIMEOUT, "timeout"),
        ("def solve(n):\n    while True:\n        pass\n", Status.TIMEOUT, "timeout"),
        ("import time\ntime.sleep(60)\n", Status.TIMEOUT, "timeout"),
        ("def solve(n):\n    return [0] * 10**9\n", Status.OUT_OF_MEMORY, "memory"),
        ("import ctypes\nctypes.string_at(0)\n", Status.CRASHED, "crash"),
        ("while True:\n    print('x' * 1000)\n", Status.CRASHED, "output_limit"),
        ("import os\nos._exit(0)\n", Status.WRONG, "fail"),
        ("import os\nos.close(3)\nwhile True:\n    pass\n", Status.WRONG, "fail"),
        ("import os\nos.write(3, b'\\xff' * 100)\n", Status.WRONG, "protocol"),
        ("def solve(n):\n    return 'x' * 10**6\n", Status.WRONG, "protocol"),
        ("def solve(n):\n    return object()\n", Status.WRONG, "fail"),
        ("", Status.WRONG, "fail"),
        ("\0", Status.UNPARSABLE, "compile_error"),
        ("#" * (1 << 21), Status.UNPARSABLE, "compile_error"),
    ],
)
def test_how_jobs_end(sandbox: Sandbox, source: str, status: Status, detail: str) -> None:
    assert ends(sandbox, Calls(source, "solve", CASES, QUICK)) == (status, detail)
    assert sandbox.run(Calls(SQUARE, "solve", CASES)).score == 1.0


def test_a_time_limit_is_of_processor_time(sandbox: Sandbox) -> None:
    waits = "import time\ndef solve(n):\n    time.sleep(0.3)\n    return n * n\n"
    limits = Limits(cpu=0.25, case_cpu=0.25, wall_factor=40.0)
    assert ends(sandbox, Calls(waits, "solve", CASES[:1], limits)) == (Status.RIGHT, "pass")


def test_nothing_is_left_for_the_next_job(sandbox: Sandbox) -> None:
    spoil = "import json\njson.loads = None\nopen('/tmp/left', 'w').write('x')\nopen('/tmp/json.py', 'w').write('x')\n"
    for _ in range(3):
        assert sandbox.run(Calls(spoil + SQUARE, "solve", CASES)).score == 1.0
    look = "import json, os\ndef solve(n):\n    return [json.loads('[1]'), os.listdir('/tmp')]\n"
    assert sandbox.run(Calls(look, "solve", (CallCase((0,), [[1], []]),))).score == 1.0


def test_jobs_are_deterministic(sandbox: Sandbox) -> None:
    source = "import os, random, time\n"
    source += "def solve(n):\n    return str([hash('a'), random.random(), time.tzname, os.environ])\n"
    said = set()
    for _ in range(2):
        with open_sandbox(sandbox.backend, workers=1) as other:
            verdict = other.run(Calls(source + "print(solve(0))\n", "solve", (CallCase((0,), 0),)))
            assert verdict.evidence is not None
            said.add(verdict.evidence.stdout)
    assert len(said) == 1 and b"UTC" in said.pop()


def test_map_keeps_the_order_and_may_be_late(sandbox: Sandbox) -> None:
    jobs = [Calls(SQUARE, "solve", (CallCase((n,), n * n if n % 2 else -1),)) for n in range(8)]
    assert [verdict.score for verdict in sandbox.map(jobs)] == [0.0, 1.0] * 4
    with open_sandbox(sandbox.backend, workers=1) as other:
        with pytest.raises(OverdueError) as caught:
            other.map([jobs[1], SLEEP], within=2.0)
        assert (caught.value.index, caught.value.missing) == (1, 1)


def test_run_async_lets_other_coroutines_run(sandbox: Sandbox) -> None:
    async def both() -> list[float]:
        runs = [sandbox.run_async(Calls(SQUARE, "solve", CASES)) for _ in range(4)]
        return [verdict.score for verdict in await asyncio.gather(*runs)]

    assert asyncio.run(both()) == [1.0] * 4


def test_close_ends_what_runs(sandbox: Sandbox) -> None:
    other = open_sandbox(sandbox.backend, workers=1)
    found: list[Status] = []
    thread = threading.Thread(target=lambda: found.append(other.run(SLEEP).status))
    thread.start()
    deadline = time.monotonic() + 10
    pool = other._judging
    assert isinstance(pool, Pool)
    while not any(jail.had_control for jail in pool._jails) and time.monotonic() < deadline:
        time.sleep(0.01)
    begun = time.monotonic()
    other.close()
    thread.join(10)
    assert time.monotonic() - begun < 5
    assert found and found[0] is not Status.RIGHT
    assert other.run(Calls(SQUARE, "solve", CASES)).status is Status.INFRASTRUCTURE_FAULT


def test_descriptors_and_processes_do_not_pile_up(sandbox: Sandbox) -> None:
    gc.collect()  # what earlier tests left is closed before the count, and not during it
    with open_sandbox(sandbox.backend, workers=1) as other:
        jobs: list[Job] = [
            Calls(SQUARE, "solve", CASES),
            Calls("while True:\n    print('x' * 1000)\n", "solve", CASES, QUICK),
            Check(SQUARE, "assert solve(2) == 4\n", ("solve",)),
            Stdio("print(1)", (StdioCase("2", "1"),)),
            Check("import os\nos._exit(0)\n", "solve(2)\n", ("solve",)),
        ]
        other.map(jobs)
        before = len(os.listdir("/proc/self/fd"))
        other.map(jobs * 3)
        assert len(os.listdir("/proc/self/fd")) == before
