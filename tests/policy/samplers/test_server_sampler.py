"""Reactions of the server sampler to servers that are absent, slow, broken or unsuitable."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.policy.config import SamplerConfig, SamplingConfig
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.server_sampler import ServerSampler

PROMPTS = [[2, 100, 120], [2, 101]]


@contextmanager
def server(answer: Any) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A small server: `answer(body)` is a (status, content) for completions; the bodies that it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(200, {"data": [{"id": "policy"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            self._reply(*answer(body))

        def _reply(self, status: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None: ...

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/v1", asked
    finally:
        running.shutdown()
        running.server_close()


def sampler_of(policy: Policy, url: str, said: list[str] | None = None, **config: Any) -> ServerSampler:
    settings = SamplerConfig(backend="server", url=url, **config)
    return ServerSampler(policy, SamplingConfig(max_tokens=4, top_k=7), settings, url, (said or []).append)


def echo(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    ids = [len(body["prompt"]) + 100, 1]
    choice = {"token_ids": ids, "logprobs": {"token_logprobs": [-0.5, -0.25]}, "finish_reason": "stop"}
    return 200, {"choices": [choice]}


def test_answers_come_back_in_the_order_of_the_prompts_each_with_its_own_seed(tiny: Policy) -> None:
    with server(echo) as (url, asked):
        sampler = sampler_of(tiny, url)
        samples = sampler.sample(PROMPTS, 3, seed=5)
        assert samples.ids == [[103, 1]] * 3 + [[102, 1]] * 3
        assert samples.logprobs == [[-0.5, -0.25]] * 6 and samples.finish == ["stop"] * 6
        seeds = {body["seed"] for body in asked}
        assert len(seeds) == 6
        again = [body["seed"] for body in asked if body["prompt"] == PROMPTS[1]]
        asked.clear()
        sampler.sample(PROMPTS[1:], 3, seed=5, before=3)  # the second prompt alone, in another process
        assert sorted(body["seed"] for body in asked) == sorted(again)
        first = asked[0]
        assert set(first["stop_token_ids"]) == set(tiny.end_ids) and first["top_k"] == 7 and first["return_token_ids"]
        sampler.close()


def test_a_server_that_is_not_there_is_named(tiny: Policy) -> None:
    with pytest.raises(UserError, match=r"No sampler's server answers at http://127\.0\.0\.1:9/v1"):
        sampler_of(tiny, "http://127.0.0.1:9/v1")


def test_what_a_server_refuses_is_passed_on(tiny: Policy) -> None:
    with (
        server(lambda body: (400, {"error": "context of 64"})) as (url, _),
        pytest.raises(UserError, match=r"refused with status 400.*context of 64"),
    ):
        sampler_of(tiny, url).sample(PROMPTS, 1, seed=0)


def test_a_server_without_token_ids_is_told_from_one_that_has_them(tiny: Policy) -> None:
    choice = {"text": "7", "logprobs": {"token_logprobs": [-0.5]}, "finish_reason": "stop"}
    with (
        server(lambda body: (200, {"choices": [choice]})) as (url, _),
        pytest.raises(UserError, match="returns no token ids"),
    ):
        sampler_of(tiny, url).sample(PROMPTS, 1, seed=0)


def test_a_server_that_hangs_is_given_up_and_named(tiny: Policy) -> None:
    def hang(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        time.sleep(8)
        return echo(body)

    with server(hang) as (url, _):
        begun = time.monotonic()
        with pytest.raises(UserError, match=r"server http://127.* (did not answer within 1 s|gave 0 of 2 completions)"):
            sampler_of(tiny, url, timeout=1).sample(PROMPTS, 1, seed=0)
        assert time.monotonic() - begun < 5


def test_a_server_has_no_anchor(tiny: Policy) -> None:
    with server(echo) as (url, _), pytest.raises(UserError, match="one set of weights"):
        sampler_of(tiny, url).sample(PROMPTS, 1, seed=0, weights="anchor")
