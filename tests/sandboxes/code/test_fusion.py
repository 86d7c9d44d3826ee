"""The client against a real server on loopback: what it sends, and what it makes of every fault."""

import json
import time

import pytest

from gemsmith.sandboxes.code.backends.fusion import FusionClient, RemoteRun, ServerFaultError
from tests.messages import raises_facts
from tests.sandboxes.code.fusion_server import (
    SANDBOX_ERROR,
    TIMED_OUT,
    answering,
    answering_json,
    closed_port,
    drip,
    drip_body,
    flood,
    hang,
    hang_up,
    redirect,
    result,
    serving,
)


def _run(server, grace=5.0, **changes):
    settings = {"seconds": 1.0, "memory": 64 << 20, "largest_reply": 1 << 20, **changes}
    return FusionClient(server.url, grace).run("print(1)", "text", **settings)


def test_a_program_is_sent_as_the_protocol_says():
    with serving(answering_json(result("1\n", seconds=0.25))) as server:
        assert _run(server) == RemoteRun(timed_out=False, code=0, stdout="1\n", stderr="", seconds=0.25)
        assert server.paths == ["/run_code"]
        assert server.requests == [
            {
                "code": "print(1)",
                "language": "python",
                "stdin": "text",
                "compile_timeout": 1.0,
                "run_timeout": 1.0,
                "memory_limit_MB": 64,
            }
        ]


def test_an_address_may_carry_a_path():
    with serving(answering_json(result())) as server:
        for path in ("/", "/proxy/", "/proxy/run_code"):
            FusionClient(server.url + path).run("", "", seconds=1, memory=1, largest_reply=1 << 20)
        assert server.paths == ["/run_code", "/proxy/run_code", "/proxy/run_code"]


@pytest.mark.parametrize("code", [1, 137, -9])
def test_a_failed_program_is_a_result(code):
    with serving(answering_json(result("out", code, "err"))) as server:
        assert _run(server) == RemoteRun(False, code, "out", "err", 0.01)


def test_a_time_limit_is_a_result():
    with serving(answering_json(TIMED_OUT)) as server:
        assert _run(server) == RemoteRun(True, None, "", "", 1.0)


NOT_RESULTS = [
    None,
    [],
    "Success",
    {},
    {"status": "Success"},
    {"status": "Success", "run_result": None},
    {"status": "Success", "run_result": {"status": "Finished"}},
    {"status": "Success", "run_result": {"status": "Finished", "return_code": True}},
    {"status": "Success", "run_result": {"status": "Finished", "return_code": 1 << 200}},
    {"status": "Success", "run_result": {"status": "Finished", "return_code": 0, "stdout": 1}},
    {"status": "Success", "run_result": {"status": "Error", "return_code": 0}},
    {"status": ["Success"], "run_result": {"status": ["Finished"]}},
    SANDBOX_ERROR,
]


@pytest.mark.parametrize("reply", NOT_RESULTS, ids=lambda reply: json.dumps(reply)[:60])
def test_an_answer_that_is_not_a_result_is_a_fault(reply):
    with serving(answering_json(reply)) as server, pytest.raises(ServerFaultError) as caught:
        _run(server)
    assert caught.value.reached


@pytest.mark.parametrize(
    ("answer", "fact", "reached"),
    [
        (answering(b"oops", 500), "HTTP 500", True),
        (answering(b"", 502), "HTTP 502", True),
        (answering(b"", 503), "busy", False),
        (answering(b"", 429), "busy", False),
        (answering(b"", 404), "not a sandbox server", False),
        (answering(b"", 204), "HTTP 204", True),
        (redirect, "HTTP 307", False),
        (answering(b"not json"), "not JSON", True),
        (answering(b"\xff\xfe\x00"), "not JSON", True),
        (answering(b"[" * 200_000), "not JSON", True),
        (answering(b'{"status": ' + b"9" * 100_000 + b"}"), "not JSON", True),
        (hang_up, "closed the connection", True),
        (flood, "more than", True),
    ],
)
def test_a_broken_server_is_a_fault_that_names_its_cause(answer, fact, reached):
    with serving(answer) as server, raises_facts(ServerFaultError, server.url, fact) as caught:
        _run(server)
    assert caught.value.reached is reached


def test_a_server_that_refuses_was_not_reached():
    with pytest.raises(ServerFaultError, match="cannot be reached") as caught:
        FusionClient(f"http://127.0.0.1:{closed_port()}").run("", "", seconds=1, memory=1, largest_reply=1)
    assert not caught.value.reached


@pytest.mark.parametrize("answer", [hang, drip, drip_body])
def test_the_wait_is_bounded_however_a_server_stalls(answer):
    with serving(answer) as server:
        begun = time.monotonic()
        with pytest.raises(ServerFaultError, match=r"did not answer within 0\.5 s"):
            _run(server, grace=0.3, seconds=0.2)
        assert time.monotonic() - begun < 5.0


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8080",
        "ftp://host",
        "file:///etc/passwd",
        "http://",
        "http://user:word@host",
        "http://host/?x=1",
        "http://host:port",
        "https://host#x",
    ],
)
def test_other_addresses_are_refused(url):
    with pytest.raises(ValueError):
        FusionClient(url)


def test_an_encrypted_address_is_taken():
    assert FusionClient("https://host/run_code").url == "https://host/run_code"
