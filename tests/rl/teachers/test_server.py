"""A teacher on a server: one that computes with a tiny policy, and servers with unusable answers."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.policy import Policy
from gemsmith.rl.teachers.config import TaughtConfig
from gemsmith.rl.teachers.opening import open_teacher
from gemsmith.rl.teachers.server import ServerTeacher
from gemsmith.rl.teachers.teacher import TeacherRow
from tests.messages import raises_facts
from tests.rl.teachers.conftest import full_logprobs

K = 5
Answer = Callable[[dict[str, Any]], tuple[int, Any]]


@contextmanager
def server(
    answer: Answer, text: Callable[[list[int]], str] | None = None, models: Any = ({"id": "big"}, {"id": "small"})
) -> Iterator[str]:
    """Serve completions with `answer` (body -> status, content), detokenise with `text`, and list `models`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(200, {"data": models})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/detokenize":
                self._reply(*((404, {}) if text is None else (200, {"prompt": text(body["tokens"])})))
            else:
                self._reply(*answer(body))

        def _reply(self, status: int, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None: ...

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/v1"
    finally:
        running.shutdown()
        running.server_close()


def computing(policy: Policy) -> Answer:
    """Answer like vLLM: null for the first token, then the most likely entries and the sequence's own token."""

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        tokens = body["prompt"]
        with torch.no_grad():
            logprobs = policy.model(torch.tensor([tokens])).logits[0].float().log_softmax(-1)
        listed: list[Any] = [None]
        for own, row in zip(tokens[1:], logprobs, strict=False):
            best = row.topk(body["prompt_logprobs"]).indices.tolist()
            listed.append({str(i): {"logprob": row[i].item(), "rank": 1, "decoded_token": "?"} for i in {*best, own}})
        return 200, {"choices": [{"text": "x", "prompt_logprobs": listed}]}

    return answer


def taught(url: str, **more: Any) -> TaughtConfig:
    teacher = {"server": url, **{n: more.pop(n) for n in ("model", "timeout") if n in more}}
    return TaughtConfig.model_validate({"teacher": teacher, "mode": "topk", "sampled_logits": K, **more})


def test_a_servers_targets_are_the_likeliest_entries_of_its_model(
    student: Policy, rows: list[TeacherRow], stage: Stage
) -> None:
    other = tiny_policy(seed=9)
    with server(computing(other), student.tokenizer.decode) as url:
        teacher = open_teacher(taught(url, model="small"), student, stage, rows)
        assert isinstance(teacher, ServerTeacher) and teacher.model == "small"
        assert (teacher.exact, teacher.on_policy, teacher.k) == (False, True, K)
        targets = teacher.targets(rows, [])
        teacher.close()
    truth_MV = full_logprobs(other, rows)
    best = truth_MV.topk(K)
    ids, weights = targets.choose(slice(0, 9), torch.zeros(9, 512))
    assert ids.tolist() == best.indices.tolist()
    assert torch.allclose(weights, best.values.softmax(-1), atol=1e-5)
    own = torch.tensor([token for row in rows for token in row.completion])
    assert torch.allclose(targets.own_M, truth_MV.gather(-1, own[:, None])[:, 0], atol=1e-5)
    assert targets.best_M.tolist() == best.indices[:, 0].tolist()


def test_another_tokenizer_and_another_model_are_refused_at_opening(
    student: Policy, rows: list[TeacherRow], stage: Stage
) -> None:
    with server(computing(student), lambda tokens: "other words") as url:
        with pytest.raises(UserError, match=r"tokenizer.*\[2, 372, 403.*'other words'"):
            open_teacher(taught(url), student, stage, rows)
        with raises_facts(UserError, "big, small", "'large'", "teacher.model"):
            open_teacher(taught(url, model="large"), student, stage, rows)


def entry(id: int, logprob: float) -> dict[str, Any]:
    return {str(id): {"logprob": logprob}}


def saying(candidates: Any) -> Answer:
    return lambda body: (200, {"choices": [{"prompt_logprobs": [None, *[candidates] * (len(body["prompt"]) - 1)]}]})


FIVE = entry(1, -1.0) | entry(2, -2.0) | entry(3, -3.0) | entry(4, -4.0) | entry(5, -5.0)


@pytest.mark.parametrize(
    ("answer", "facts"),
    [
        (lambda body: (400, {"error": "max_logprobs is 20"}), ["status 400", "max_logprobs is 20"]),
        (lambda body: (200, {}), ["completion"]),
        (lambda body: (200, [1]), ["[1]", "JSON object"]),
        (lambda body: (200, {"choices": [{"text": "7"}]}), ["none as prompt_logprobs", "--max-logprobs 5"]),
        (lambda body: (200, {"choices": [{"prompt_logprobs": [None]}]}), ["1 entries as prompt_logprobs of 4"]),
        (
            saying(entry(1, -1.0)),
            ["1 entries per token", "sampled_logits is 5", "--max-logprobs 5"],
        ),
        (saying({"x": 3}), ["{'x': 3}", "`logprob`"]),
        (saying(None), ["0 entries per token"]),
        (saying(FIVE | entry(1, math.nan)), ["log-probability", "NaN"]),
        (saying(FIVE | entry(600, -0.1)), ["id outside", "vocabulary of 512"]),
    ],
)
def test_a_server_that_answers_badly_is_named_with_what_it_said(
    answer: Answer, facts: list[str], student: Policy, rows: list[TeacherRow], stage: Stage
) -> None:
    with server(answer) as url, raises_facts(UserError, url, *facts):
        open_teacher(taught(url), student, stage, rows)


@pytest.mark.parametrize("models", [[], None, "big", [{"name": "big"}], ["big"]])
def test_a_server_that_lists_no_model_is_told_as_such(models: Any, student: Policy, stage: Stage) -> None:
    with (
        server(lambda body: (200, {}), models=models) as url,
        raises_facts(UserError, "teacher's server", "/models", "`id`"),
    ):
        open_teacher(taught(url), student, stage, [])


def test_a_server_that_hangs_or_is_not_there_is_given_up_within_the_limit(
    student: Policy, rows: list[TeacherRow], stage: Stage
) -> None:
    def hang(body: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(6)
        return 200, {}

    with server(hang) as url:
        begun = time.monotonic()
        with pytest.raises(UserError, match=r"teacher's server http.*(within 1 s|gave 0 of 1 completions)"):
            open_teacher(taught(url, timeout=1), student, stage, rows)
        assert time.monotonic() - begun < 5
    with raises_facts(UserError, "teacher's server", "http://127.0.0.1:9/v1"):
        open_teacher(taught("http://127.0.0.1:9/v1"), student, stage, rows)


@pytest.mark.parametrize(
    ("more", "facts"),
    [({"mode": "gumbel_renorm"}, ["mode", "topk"]), ({"temperature": 2.0}, ["temperature 2", "server"])],
)
def test_what_a_server_cannot_give_is_refused_by_the_recipe(more: dict[str, Any], facts: list[str]) -> None:
    with raises_facts(ValidationError, *facts):
        taught("http://127.0.0.1:9/v1", **more)
