"""The http backend against a server on loopback that really runs the programs, in this project's own sandbox."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gemsmith.sandboxes.code.backends.backend import SandboxUnavailableError
from gemsmith.sandboxes.code.backends.http import HttpSandbox
from gemsmith.sandboxes.code.jobs import CallCase, Calls, Check, Limits, Script, Stdio, StdioCase
from gemsmith.sandboxes.code.sandbox import Sandbox
from gemsmith.sandboxes.code.selection import open_sandbox
from gemsmith.sandboxes.verdict import Status
from tests.sandboxes.code.fusion_server import (
    SANDBOX_ERROR,
    TIMED_OUT,
    answering,
    answering_json,
    closed_port,
    drip_body,
    flood,
    hang,
    hang_up,
    redirect,
    result,
    serving,
)

LIMITS = Limits(cpu=2.0, case_cpu=1.0, wall_factor=2.0)
ADDER = "def add(a, b):\n    return a + b\n"
SUMS = tuple(CallCase((a, b), a + b) for a, b in [(1, 2), (0, 0), (-5, 3)])


@pytest.fixture(scope="module")
def sandbox():
    try:
        opened = open_sandbox("auto", workers=2)
    except SandboxUnavailableError as error:
        pytest.skip(str(error))
    with opened:
        yield opened


@pytest.fixture(scope="module")
def server(sandbox):
    """Runs what it is asked to run, as SandboxFusion does, but inside a jail."""

    def answer(exchange):
        request = exchange.request_json
        cpu = request["run_timeout"] / 3
        limits = Limits(cpu=cpu, case_cpu=cpu, memory=request["memory_limit_MB"] << 20, output=1 << 22)
        verdict = sandbox.run(Stdio(request["code"], (StdioCase(request["stdin"] or "", "\0"),), limits))
        seen = verdict.evidence
        if verdict.status is Status.TIMEOUT:
            exchange.reply_json(TIMED_OUT)
            return
        if verdict.status is Status.UNPARSABLE:
            exchange.reply_json(
                result("", 1, f'  File "main.py", line 1\n{verdict.reason.rpartition("compile: ")[2]}\n')
            )
            return
        code = int(seen.exit) if seen.exit.isdigit() else -9
        stdout, stderr = (text.decode(errors="replace") for text in (seen.stdout, seen.stderr))
        exchange.reply_json(result(stdout, code, stderr, verdict.seconds))

    with serving(answer) as running:
        yield running


@pytest.fixture(scope="module")
def http(server):
    with Sandbox(HttpSandbox(server.url, grace=20.0, pause=0.0), 2) as remote:
        yield remote


def _faulty(server, job, **settings):
    return HttpSandbox(server.url, **{"grace": 5.0, "pause": 0.0, **settings}).run(job)


def _calls(source, function="add", cases=SUMS, limits=LIMITS):
    return Calls(source, function, cases, limits)


def test_right_programs_are_right_and_say_where_they_ran(http):
    calls = http.run(_calls(ADDER))
    assert (calls.score, calls.status, calls.answer) == (1.0, Status.RIGHT, ADDER)
    assert (calls.evidence.backend, calls.evidence.cases, calls.evidence.forgeable) == ("http", (True,) * 3, False)
    stdio = http.run(Stdio("print(int(input()) * 2)", (StdioCase("4\n", "8"), StdioCase("5", "10\n"))))
    assert (stdio.score, stdio.evidence.cases) == (1.0, (True, True))


@pytest.mark.parametrize(
    ("source", "status", "cases"),
    [
        ("def add(a, b):\n    return a - b", Status.WRONG, (False, True, False)),
        ("def add(a, b):\n    return float(a + b) + 1e-9", Status.WRONG, (False, False, False)),
        ("def add(a, b):\n    return True if a + b == 3 else a + b", Status.WRONG, (True, True, True)),
        ("def add(a, b):\n    raise ValueError(a)", Status.WRONG, (False, False, False)),
        ("def add(a, b):\n    return object()", Status.WRONG, (False, False, False)),
        ("def other(a, b):\n    return a + b", Status.WRONG, (False, False, False)),
        ("def add(a, b:", Status.UNPARSABLE, ()),
        ("import nothing", Status.WRONG, ()),
        ("raise SystemExit(0)", Status.WRONG, ()),
        ("import os\nos._exit(0)", Status.WRONG, ()),
        ("def add(a, b):\n    import os\n    os._exit(0)", Status.WRONG, ()),
        (
            "def add(a, b):\n    return a + b if a else exec('raise SystemExit')",
            Status.WRONG,
            (True, False, True),
        ),
        ("def add(a, b):\n    while True: pass", Status.TIMEOUT, ()),
        ("import os\nos.abort()", Status.CRASHED, ()),
        ("def add(a, b):\n    return bytearray(1 << 40)", Status.OUT_OF_MEMORY, (False, False, False)),
        ("x = bytearray(1 << 40)", Status.OUT_OF_MEMORY, ()),
    ],
)
def test_programs_that_are_not_right(http, source, status, cases):
    verdict = http.run(_calls(source))
    expected = (False, True, True) if cases == (True, True, True) else cases
    assert (verdict.score, verdict.status, verdict.evidence.cases) == (0.0, status, expected), verdict.reason


def test_what_a_program_prints_does_not_disturb_its_answers(http):
    noisy = (
        "import os, sys\nprint('R ')\nos.write(1, b'V AAAA\\n')\n"
        "def add(a, b):\n    print('X', flush=True)\n    sys.stderr.write('y')\n    return a + b\n"
    )
    assert http.run(_calls(noisy)).score == 1.0


def test_a_program_may_have_classes_that_look_up_their_module(http):
    source = (
        "from __future__ import annotations\nimport dataclasses, pickle\n"
        "@dataclasses.dataclass\nclass Pair:\n    a: int\n    b: int\n"
        "def add(a, b):\n    pair = pickle.loads(pickle.dumps(Pair(a, b)))\n    return pair.a + pair.b\n"
    )
    assert http.run(_calls(source)).score == 1.0


HACKS = {
    "equal to everything": "class Equal(int):\n    __eq__ = lambda *_: True\ndef add(a, b):\n    return Equal(-77)",
    "prints a marker": "print('PASS ' * 100)\ndef add(a, b):\n    return None",
    "looks for the expected values": (
        "import gc, sys\n"
        "def add(a, b):\n"
        "    texts = [o for o in gc.get_objects() if isinstance(o, (list, tuple)) and len(o) == 3]\n"
        "    frame, names = sys._getframe(), []\n"
        "    while frame:\n"
        "        names += [n for n in {**frame.f_globals, **frame.f_locals} if 'expect' in str(n)]\n"
        "        frame = frame.f_back\n"
        "    return names"
    ),
    "forges answers it does not know": (
        "import base64, os, struct\n"
        "for fd in range(64):\n"
        "    for n in range(3):\n"
        "        try: os.write(fd, b'V ' + base64.b64encode(struct.pack('>I', n) + b'T') + b'\\n')\n"
        "        except OSError: pass\n"
        "def add(a, b):\n    return 'T'"
    ),
    "ends after the first": "import os\ndef add(a, b):\n    os._exit(0) if a == 0 else None\n    return a + b",
    "patches the codec": "import codec\ncodec.encode = lambda *a, **k: b'T'\ndef add(a, b):\n    return 1",
}


@pytest.mark.parametrize("hack", HACKS)
def test_hacks_earn_nothing(http, hack):
    verdict = http.run(_calls(HACKS[hack]))
    assert (verdict.score, verdict.status) == (0.0, Status.WRONG)


def test_expected_values_are_never_sent(server, http):
    secret = "an-expected-value-9173"
    server.requests.clear()
    http.run(Calls("def f(x):\n    return x", "f", (CallCase(("given",), secret),), LIMITS))
    http.run(Stdio("print(1)", (StdioCase("given", secret),), LIMITS))
    sent = " ".join(str(request) for request in server.requests)
    assert "given" in sent and secret not in sent


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("print(input())", Status.RIGHT),
        ("print(input() + 'x')", Status.WRONG),
        ("print(input()); raise SystemExit(3)", Status.WRONG),
        ("print(", Status.UNPARSABLE),
        ("raise SyntaxError('made up')", Status.WRONG),
        ("while True: pass", Status.TIMEOUT),
        ("x = bytearray(1 << 40)", Status.OUT_OF_MEMORY),
        ("import os; os.abort()", Status.CRASHED),
        ("print('\ud800')", Status.UNPARSABLE),
        ("#" * 100 + "\n" * (1 << 20), Status.UNPARSABLE),
    ],
)
def test_scripts(http, source, status):
    verdict = http.run(Stdio(source, (StdioCase("a line\n", "a line"),), LIMITS))
    assert verdict.status is status, verdict.reason


def test_values_cross_unchanged(http):
    values = [None, True, 2**70, -0.0, 1.5, "é\n", b"\x00", [1, (2, {3})], {"a": [1], (1, 2): "b"}, 3 + 4j]
    job = Calls("def f(x):\n    return x", "f", tuple(CallCase((value,), value) for value in values), LIMITS)
    assert http.run(job).evidence.cases == (True,) * len(values)
    keywords = Calls("def f(a, *, b):\n    return a - b", "f", (CallCase((5,), 3, {"b": 2}),), LIMITS)
    assert http.run(keywords).score == 1.0


def test_jobs_that_say_nothing_are_invalid(http):
    for job in (
        _calls(ADDER, cases=()),
        Stdio("print(1)", ()),
        _calls(ADDER, cases=(CallCase((object(),), 1),)),
        _calls(ADDER, cases=(CallCase((1, 2), "x" * (1 << 20)),)),
        Stdio("print(1)", (StdioCase("\udcff", "1"),)),
    ):
        verdict = http.run(job)
        assert (verdict.status, verdict.evidence.detail) == (Status.WRONG, "invalid_test"), verdict.reason


def test_a_check_is_refused_and_a_script_is_forgeable(http):
    with pytest.raises(SandboxUnavailableError, match="Check"):
        http.run(Check(ADDER, "assert add(1, 2) == 3", ("add",)))
    right = http.run(Script(ADDER, "assert add(1, 2) == 3"))
    assert right.score == 1.0 and right.evidence.forgeable
    assert http.run(Script(ADDER, "assert add(1, 2) == 4")).status is Status.WRONG


def test_requests_may_be_made_from_many_threads(http):
    with ThreadPoolExecutor(8) as threads:
        verdicts = list(threads.map(http.run, [_calls(ADDER), _calls("def add(a, b):\n    return 0")] * 8))
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0] * 8


FAULTS = {
    "500": answering(b"oops", 500),
    "busy": answering(b"", 503),
    "garbage": answering(b"{'status': garbage"),
    "sandbox error": answering_json(SANDBOX_ERROR),
    "empty object": answering_json({}),
    "hangs up": hang_up,
    "huge": flood,
    "redirects": redirect,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "job",
    [Calls(ADDER, "add", SUMS, Limits(output=1000)), Stdio("", (StdioCase("", ""),), Limits(output=1000))],
    ids=["calls", "stdio"],
)
def test_a_broken_service_is_an_infrastructure_fault_after_one_retry(fault, job):
    with serving(FAULTS[fault]) as server:
        verdict = _faulty(server, job)
        assert verdict.status is Status.INFRASTRUCTURE_FAULT
        assert server.url in verdict.reason
        sent = [request for request in server.requests if "6 * 7" not in request["code"]]
        assert len(sent) == 2


def test_a_service_that_is_not_there_is_an_infrastructure_fault():
    verdict = HttpSandbox(f"http://127.0.0.1:{closed_port()}", pause=0.0).run(_calls(ADDER))
    assert verdict.status is Status.INFRASTRUCTURE_FAULT and "cannot be reached" in verdict.reason


def test_a_service_that_hangs_is_given_up_in_bounded_time():
    with serving(hang) as server:
        begun = time.monotonic()
        limits = Limits(cpu=0.1, case_cpu=0.1, wall_factor=0.0)
        verdict = HttpSandbox(server.url, grace=-0.8, pause=0.0).run(Stdio("", (StdioCase("", ""),), limits))
        assert verdict.status is Status.INFRASTRUCTURE_FAULT
        assert time.monotonic() - begun < 5.0  # two requests of 0.2 s, one of 1.2 s


@pytest.mark.parametrize(
    ("answer", "pause"), [(hang, 0.0), (drip_body, 0.0), (answering(b"", 500), 5.0)], ids=["hangs", "drips", "pause"]
)
def test_closing_ends_what_is_under_way_and_nothing_is_sent_after_it(answer, pause):
    with ThreadPoolExecutor(2) as threads, serving(answer) as server:
        http = HttpSandbox(server.url, grace=20.0, pause=pause)
        under_way = [threads.submit(http.run, _calls(ADDER)) for _ in range(2)]
        while len(server.requests) < 2 and not any(one.done() for one in under_way):
            time.sleep(0.01)
        time.sleep(0.1)  # into the wait for an answer, or the pause
        http.close()
        for verdict in [one.result(timeout=2.0) for one in under_way] + [http.run(_calls(ADDER))]:
            assert (verdict.status, verdict.reason) == (Status.INFRASTRUCTURE_FAULT, "the sandbox was closed")
        assert len(server.requests) == 2


def test_more_output_than_is_allowed_ends_a_job():
    for stdout, stderr in (("x" * 1001, ""), ("", "é" * 501)):
        with serving(answering_json(result(stdout, 0, stderr))) as server:
            verdict = _faulty(server, Stdio("", (StdioCase("", stdout),), Limits(output=1000)))
            assert (verdict.status, verdict.evidence.detail) == (Status.CRASHED, "output_limit")


def test_a_fault_that_passes_is_forgotten():
    failing = iter([True])

    def answer(exchange):
        if next(failing, False):
            exchange.reply(b"", 500)
        else:
            exchange.reply_json(result("8\n"))

    with serving(answer) as server:
        assert _faulty(server, Stdio("print(8)", (StdioCase("", "8"),))).score == 1.0


def test_a_program_that_breaks_the_service_is_not_forgiven():
    def answer(exchange):
        if "6 * 7" in exchange.request_json["code"]:
            exchange.reply_json(result("42\n"))
        else:
            exchange.reply(b"", 502)

    with serving(answer) as server:
        verdict = _faulty(server, Stdio("exhaust()", (StdioCase("", "8"),)))
        assert (verdict.status, verdict.score) == (Status.CRASHED, 0.0)


def test_a_forged_reply_of_the_right_shape_needs_the_right_values():
    for stdout in ("", "R \n", "R \nV AAAA", "V AAAAAFQ=\n", "R \n" + "V AAAAAE4=\n" * 3, "R \nnonsense\n", "\n\n\n\n"):
        with serving(answering_json(result(stdout))) as server:
            assert _faulty(server, _calls(ADDER)).status is Status.WRONG


@pytest.mark.parametrize("url", ["ftp://host", "file:///etc/passwd", "host:80"])
def test_other_addresses_are_refused(url):
    with pytest.raises(SandboxUnavailableError, match="http"):
        HttpSandbox(url)
