"""Judge reward with a real local server that replies correctly, late, wrongly or not at all."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.compose import open_rewards
from gemsmith.rl.rewards.config import HttpReward
from gemsmith.rl.rewards.kinds.http import last_number
from tests.messages import assert_facts, raises_facts
from tests.sandboxes.code.fusion_server import (
    Answer,
    Exchange,
    answering,
    closed_port,
    drip,
    drip_body,
    flood,
    hang,
    hang_up,
    redirect,
    serving,
)


def judging(judge: Callable[[str], str]) -> Answer:
    """Return a chat endpoint that replies to the user's turn."""

    def answer(exchange: Exchange) -> None:
        asked = exchange.request_json["messages"][-1]["content"]
        exchange.reply_json({"choices": [{"message": {"role": "assistant", "content": judge(asked)}}]})

    return answer


def failing_first(times: int, fault: Answer, then: Answer) -> Answer:
    """Return an endpoint that fails on the first requests."""
    left = threading.Semaphore(times)
    return lambda exchange: (fault if left.acquire(blocking=False) else then)(exchange)


five = judging(lambda asked: "Score: 5")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gemsmith.rl.rewards.kinds.http.FIRST_PAUSE", 0.02)


def reward(url: str, **config: object) -> HttpReward:
    fields = {"url": url, "model": "judge", "prompt": "{prompt} -> {completion}", "scale": [0, 10], **config}
    return HttpReward(kind="http", **fields)  # type: ignore[arg-type]


def scores(stage: Stage, url: str, completions: list[str], columns=None, **config: object):
    stage.rewards = {"it": reward(url, **config)}
    with open_rewards(["it"], stage) as rewards:
        return rewards.score(["p"] * len(completions), completions, columns or {}).each["it"]


def test_the_number_of_the_judge_is_mapped_from_the_scale(stage: Stage):
    with serving(judging(lambda asked: f"I give 3, no: {asked[-1]}.")) as server:
        assert scores(stage, server.url, ["a1", "b5", "c3"], scale=[1, 5]) == [0.0, 1.0, 0.5]


def test_the_judge_is_asked_as_the_recipe_says(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    keys: list[str | None] = []

    def answer(exchange: Exchange) -> None:
        keys.append(exchange.headers["Authorization"])
        five(exchange)

    prompt = "{{Q}} {prompt} A {completion} T {answer} L {level[0]}"
    stage.seed = 7
    with serving(answer) as server:
        url = f"{server.url}/v1/"
        columns = {"answer": ["4"], "level": [["hard"]]}
        assert scores(stage, url, ["{x}"], columns, prompt=prompt, system="Judge.", api_key_env="JUDGE_KEY") == [0.5]
        scores(stage, url + "chat/completions", ["x"])
    assert server.paths == ["/v1/chat/completions"] * 2
    assert keys == ["Bearer secret", None]
    assert server.requests[0] == {
        "model": "judge",
        "messages": [
            {"role": "system", "content": "Judge."},
            {"role": "user", "content": "{Q} p A {x} T 4 L hard"},
        ],
        "max_tokens": 512,
        "temperature": 0,
        "seed": 7,
    }


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("8", "8"),
        ("First 3, then 7.5.", "7.5"),
        ("**Score:** -2", "-2"),
        ("7/10", "7"),
        ("I say 7 out of 10.", "7"),
        ("10/10", "10"),
        ("From 1-10", "10"),
        ("step2 of v1.2.3", None),
        ("none", None),
    ],
)
def test_the_last_number_counts_but_for_that_of_the_scale(text: str, number: str | None):
    assert last_number(text, 10.0) == number


def test_the_number_may_be_that_of_a_group(stage: Stage):
    with serving(judging(lambda asked: "Score: 5. That is 9 more than -4.")) as server:
        assert scores(stage, server.url, ["x"], number=r"Score: (\d+)") == [0.5]


def test_an_answer_without_a_number_on_the_scale_is_none_and_counted(stage: Stage, listener):
    answers = {"a": "Score: 5", "b": "I cannot say", "c": "11", "d": ""}
    stage.rewards = {}
    with serving(judging(lambda asked: answers[asked[-1]])) as server:
        stage.rewards = {"it": reward(server.url)}
        with open_rewards(["it"], stage) as rewards:
            assert rewards.score(["p"] * 4, list("abcd"), {}).each["it"] == [0.5, None, None, None]
            assert rewards.faults == {"it": 3}
            assert "no number from 0 to 10 in 3 of 4 replies" in listener.said[0]
            assert "'I cannot say' on sample 1 (prompt 'p', completion 'b')" in listener.said[0]
            with raises_facts(RunError, "no number from 0 to 10", "2 of 2 replies", server.url, "`prompt`"):
                rewards.score(["p"] * 2, ["b", "c"], {})


def test_a_completion_that_the_endpoint_cannot_take_is_none(stage: Stage, listener):
    def answer(exchange: Exchange) -> None:
        long = len(exchange.request_json["messages"][0]["content"]) > 100
        exchange.reply_json({"error": "at most 8 tokens"}, 400) if long else five(exchange)

    with serving(answer) as server:
        assert scores(stage, server.url, ["x" * 200, "x"]) == [None, 0.5]
    assert "at most 8 tokens" in listener.said[0]


@pytest.mark.parametrize(
    "garbage",
    [
        b"7",
        b"<html>7</html>",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": null}}]}',
        b"[" * 9999,
        b"\xff",
    ],
)
def test_what_is_no_chat_completion_has_no_number(stage: Stage, garbage: bytes):
    with serving(answering(garbage)) as server, raises_facts(RunError, "no number", "1 of 1 replies"):
        scores(stage, server.url, ["x"])
    with serving(failing_first(1, answering(garbage), five)) as server:
        assert sorted(scores(stage, server.url, ["x", "y"]), key=str) == [0.5, None]


def test_an_endless_reply_has_no_number(stage: Stage):
    with serving(flood) as server, raises_facts(RunError, "no number", "1 of 1 replies"):
        scores(stage, server.url, ["x"])


@pytest.mark.parametrize("fault", [answering(b"", 500), answering(b"", 503), answering(b"", 429), hang_up])
def test_what_may_pass_is_tried_again_with_growing_pauses(stage: Stage, fault: Answer):
    with serving(failing_first(3, fault, five)) as server:
        begun = time.monotonic()
        assert scores(stage, server.url, ["x"]) == [0.5]
        assert time.monotonic() - begun >= 0.02 + 0.04 + 0.08
        assert len(server.requests) == 4


def test_what_will_not_pass_ends_the_run_at_once(stage: Stage):
    with serving(answering(b"no such key", 401)) as server, pytest.raises(UserError) as caught:
        scores(stage, server.url, ["x"])
    assert_facts(caught.value, "reward it (http)", server.url, "HTTP 401", "'no such key'", "`url`", "`api_key_env`")
    with serving(redirect) as server, raises_facts(UserError, server.url, "HTTP 307"):
        scores(stage, server.url, ["x"])


@pytest.mark.parametrize("fault", [hang, drip, drip_body])
def test_a_judge_that_hangs_ends_at_the_time_limit_of_the_whole_and_holds_no_thread(stage: Stage, fault: Answer):
    def answer(exchange: Exchange) -> None:
        (five if exchange.request_json["messages"][0]["content"].endswith("a") else fault)(exchange)

    before, begun = set(threading.enumerate()), time.monotonic()
    with serving(answer) as server:
        stage.rewards = {"it": reward(server.url, time_limit=1.5, at_once=2)}
        with open_rewards(["it"], stage) as rewards:
            with pytest.raises(RunError) as caught:
                rewards.score(["p"] * 4, ["a", "b", "c", "d"], {})
            for thread in set(threading.enumerate()) - before:
                if thread.name.startswith("reward it"):
                    thread.join(max(0.0, begun + 5.0 - time.monotonic()))
                    assert not thread.is_alive()
    assert_facts(
        caught.value,
        "reward it (http)",
        "time_limit of 1.5 s",
        "3 of 4 replies",
        server.url,
        "`time_limit`",
        "`at_once`",
    )
    assert "fault" not in str(caught.value)


def test_a_judge_that_is_not_there_is_named_with_the_fault(stage: Stage):
    url = f"http://127.0.0.1:{closed_port()}"
    with raises_facts(RunError, "1 of 1 replies", url, "last fault: ConnectionRefusedError"):
        scores(stage, url, ["x"], time_limit=0.3)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, to sign a certificate")
def test_a_certificate_that_is_not_trusted_ends_the_run_at_once(stage: Stage, tmp_path: Path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout"]
    subprocess.run([*make, key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            try:
                context.wrap_socket(listening.accept()[0], server_side=True)
            except OSError:
                return

        threading.Thread(target=greet, daemon=True).start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}/v1"
        begun = time.monotonic()
        with raises_facts(UserError, "certificate", url, "(self-signed certificate)"):
            scores(stage, url, ["x"], time_limit=30)
        assert time.monotonic() - begun < 20


def test_requests_run_beside_each_other_up_to_at_once(stage: Stage):
    together, most, lock = 0, 0, threading.Lock()

    def answer(exchange: Exchange) -> None:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.1)
        with lock:
            together -= 1
        five(exchange)

    with serving(answer) as server:
        assert scores(stage, server.url, ["x"] * 12, at_once=4) == [0.5] * 12
    assert most == 4


def test_closing_ends_what_is_under_way(stage: Stage):
    with serving(hang) as server:
        stage.rewards = {"it": reward(server.url)}
        rewards = open_rewards(["it"], stage)
        failures: list[BaseException] = []

        def ask() -> None:
            try:
                rewards.score(["p"], ["x"], {})
            except RunError as error:
                failures.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        while not server.requests:
            time.sleep(0.01)
        rewards.close()
        asking.join(5.0)
        assert not asking.is_alive()
    assert [str(one) for one in failures] == [f"reward it (http) was closed while it waited for {server.url}."]


def test_no_proxy_of_the_environment_is_used(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    with serving(five) as server:
        assert scores(stage, server.url, ["x"], time_limit=5.0) == [0.5]


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"prompt": "Judge {prompt}"}, ["prompt", "{completion}"]),
        ({"prompt": "Judge {completion}}"}, ["prompt", "Single '}'"]),
        ({"scale": [10, 1]}, ["scale", "[10.0, 1.0]", "[worst, best]"]),
        ({"number": r"Score: \d+"}, ["number", "0 groups", "1 group"]),
        ({"number": "Score: ("}, ["number", "regular expression: missing ) at position 8"]),
        ({"url": "localhost:8000"}, ["url", "pattern"]),
        ({"url": "http://local host"}, ["url", "pattern"]),
    ],
)
def test_a_judge_that_cannot_be_is_refused_in_the_recipe(fields: dict[str, object], facts: list[str]):
    with raises_facts(ValidationError, *facts):
        reward(**{"url": "http://localhost", **fields})  # type: ignore[arg-type]


def test_what_the_judge_cannot_be_asked_is_said(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with raises_facts(UserError, "environment variable JUDGE_KEY", "export JUDGE_KEY=", "`api_key_env`"):
        scores(stage, "http://localhost", ["x"], api_key_env="JUDGE_KEY")
    with raises_facts(UserError, "`prompt`", "KeyError: 'gold'", "answer", "{completion}"):
        scores(stage, "http://localhost", ["x"], {"answer": ["4"]}, prompt="{completion} {gold}")
    with raises_facts(UserError, "`url`", "http://host:port/v1", "user name", "`api_key_env`") as caught:
        scores(stage, "http://me:secret@localhost", ["x"])
    assert "secret" not in str(caught.value)
    with raises_facts(UserError, "reward it (http)", "`url`", "port"):
        scores(stage, "http://localhost:port", ["x"])
