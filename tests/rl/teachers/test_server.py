"""A teacher behind a server: a small one that computes with a tiny policy, and ones that answer badly."""

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
from tests.rl.teachers.conftest import full_logprobs

K = 5
Answer = Callable[[dict[str, Any]], tuple[int, Any]]


@contextmanager
def server(
    answer: Answer, text: Callable[[list[int]], str] | None = None, models: Any = ({"id": "big"}, {"id": "small"})
) -> Iterator[str]:
    """`answer` gives status and content for completions, `text` that of token ids; `models` is what it lists."""

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
    """As vLLM answers: null for the first token, then the likeliest entries and the sequence's own token."""

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
        with pytest.raises(UserError, match=r"reads the ids \[2, 372, 403.* as 'other words'.*over one vocabulary"):
            open_teacher(taught(url), student, stage, rows)
        with pytest.raises(UserError, match=r"serves big, small, and no 'large'"):
            open_teacher(taught(url, model="large"), student, stage, rows)


def entry(id: int, logprob: float) -> dict[str, Any]:
    return {str(id): {"logprob": logprob}}


def saying(candidates: Any) -> Answer:
    return lambda body: (200, {"choices": [{"prompt_logprobs": [None, *[candidates] * (len(body["prompt"]) - 1)]}]})


FIVE = entry(1, -1.0) | entry(2, -2.0) | entry(3, -3.0) | entry(4, -4.0) | entry(5, -5.0)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda body: (400, {"error": "max_logprobs is 20"}), "refused with status 400.*max_logprobs is 20"),
        (lambda body: (200, {}), "answers with no completion"),
        (lambda body: (200, [1]), r"answers with \[1\], expected a JSON object"),
        (lambda body: (200, {"choices": [{"text": "7"}]}), r"gives none as prompt_logprobs.*--max-logprobs 5"),
        (lambda body: (200, {"choices": [{"prompt_logprobs": [None]}]}), "gives 1 entries as prompt_logprobs of 4"),
        (
            saying(entry(1, -1.0)),
            "gives 1 entries a token, and sampled_logits asks for 5: start it with --max-logprobs",
        ),
        (saying({"x": 3}), "expected ids with a `logprob` each"),
        (saying(None), "gives 0 entries a token"),
        (saying(FIVE | entry(1, math.nan)), "not a number"),
        (saying(FIVE | entry(600, -0.1)), "outside the student's vocabulary of 512"),
    ],
)
def test_a_server_that_answers_badly_is_named_with_what_it_said(
    answer: Answer, words: str, student: Policy, rows: list[TeacherRow], stage: Stage
) -> None:
    with server(answer) as url, pytest.raises(UserError, match=words):
        open_teacher(taught(url), student, stage, rows)


@pytest.mark.parametrize("models", [[], None, "big", [{"name": "big"}], ["big"]])
def test_a_server_that_lists_no_model_is_told_as_such(models: Any, student: Policy, stage: Stage) -> None:
    with (
        server(lambda body: (200, {}), models=models) as url,
        pytest.raises(UserError, match=r"teacher's server .* serves no model: its /models lists none with an `id`"),
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
    with pytest.raises(UserError, match=r"No teacher's server answers at http://127\.0\.0\.1:9/v1"):
        open_teacher(taught("http://127.0.0.1:9/v1"), student, stage, rows)


@pytest.mark.parametrize(
    ("more", "words"), [({"mode": "gumbel_renorm"}, "topk"), ({"temperature": 2.0}, "temperature")]
)
def test_what_a_server_cannot_give_is_refused_by_the_recipe(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        taught("http://127.0.0.1:9/v1", **more)
