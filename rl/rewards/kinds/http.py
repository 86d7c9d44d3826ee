"""Judge reward: the number that a judge behind an OpenAI-style chat endpoint gives a completion, mapped to [0, 1]."""

import http.client
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from string import Formatter
from typing import Any
from urllib.parse import urlsplit

import regex

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.config import HttpReward
from gemsmith.rl.rewards.reward import Columns, sample, shortened

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
"""First and longest pause before a failed request is sent again, in seconds; each pause is twice the one before."""
UNTAKEN = {400, 413, 422}
"""Statuses caused by the content of a single request, such as a completion that is too long for the judge."""
LARGEST_REPLY = 4 << 20
CONNECTING = 10.0
"""Time limit of connecting, in seconds; the only operation that `end` cannot interrupt."""
_NUMBER = regex.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w]|\.\d)")


class HttpJudge:
    """Judge reward in [0, 1]: the judge's number on the configured scale, at temperature 0 with the stage's seed.

    Requests with status 429 or 5xx, or without a reply, are repeated until the time limit. The score is None, and
    counted in `faults`, if a reply has no number on the scale or the endpoint rejects the request's content (a
    completion may be too long for it). The run stops if a whole batch has no score, and on any other status than 200.
    Requests go directly to `url`, without proxies or redirects. A completion can persuade a judge of a high number:
    no template prevents that.
    """

    def __init__(self, name: str, config: HttpReward, stage: Stage) -> None:
        self.faults = 0
        self._label = f"reward {name} (http)"
        self._config, self._stage = config, stage
        self._headers = {"Content-Type": "application/json", **self._key()}
        self._connect = endpoint(config.url, self._label)
        self._asking: _Asking | None = None
        self._number = regex.compile(config.number) if config.number else None

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """See `Reward.score`."""
        if not prompts:
            return []
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        rows = rows or [{} for _ in prompts]
        bodies = [
            self._body({**row, "prompt": prompt, "completion": completion})
            for row, prompt, completion in zip(rows, prompts, completions, strict=True)
        ]
        answers = self._ask(bodies)
        scores = [self._read(answer) for answer in answers]
        self._report_faults(scores, answers, prompts, completions)
        return scores

    def close(self) -> None:
        """Abort pending requests; see `Reward.close`."""
        if self._asking is not None:
            self._asking.end()

    def _key(self) -> dict[str, str]:
        variable = self._config.api_key_env
        if variable is None:
            return {}
        key = os.environ.get(variable, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise UserError(
                f"{self._label}: the environment variable {variable} does not contain a valid API key; run "
                f"`export {variable}=...`, or remove `api_key_env`."
            )
        return {"Authorization": f"Bearer {key}"}

    def _body(self, values: dict[str, Any]) -> bytes:
        try:
            asked = Formatter().vformat(self._config.prompt, (), values)
        except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
            raise UserError(
                f"{self._label}: its `prompt` could not be filled ({type(error).__name__}: {error}); use {{prompt}}, "
                f"{{completion}} or a column ({', '.join(sorted(values))}), and double all literal braces."
            ) from error
        system = [{"role": "system", "content": self._config.system}] if self._config.system else []
        body = {
            "model": self._config.model,
            "messages": [*system, {"role": "user", "content": asked}],
            "max_tokens": self._config.max_tokens,
            "temperature": 0,
            "seed": self._stage.seed,
        }
        return json.dumps(body).encode()

    def _ask(self, bodies: list[bytes]) -> list["_JudgeAnswer"]:
        """Send the requests and return the judge's replies in the same order."""
        asking = self._asking = _Asking(self._connect, self._headers, self._label, self._config)
        pool = ThreadPoolExecutor(min(self._config.at_once, len(bodies)), thread_name_prefix=self._label)
        try:
            asked = [pool.submit(asking.answer, body) for body in bodies]
            done, _ = wait(asked, timeout=self._config.time_limit, return_when=FIRST_EXCEPTION)
            missing = sum(not future.done() for future in asked)
            for future in done:
                future.result()  # `wait` returned early if one of them failed: raise its exception
            if missing:
                raise asking.late(missing, len(bodies))
            return [future.result() for future in asked]
        except _EndedError:
            raise RunError(f"{self._label} was closed while it waited for {self._config.url}.") from None
        finally:
            # Threads cannot be killed: closing their sockets makes them return, so that shutdown need not wait.
            asking.end()
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, answer: "_JudgeAnswer") -> float | None:
        """Return the number in a reply, mapped from the scale to [0, 1]; None if there is none on the scale."""
        low, high = self._config.scale
        if not answer.judged:
            return None
        number_text = last_number(answer.text, high) if self._number is None else self._captured(answer.text)
        try:
            number = float(number_text or "")
        except ValueError:
            return None
        return (number - low) / (high - low) if low <= number <= high else None

    def _captured(self, answer: str) -> str | None:
        assert self._number is not None
        try:
            match = self._number.search(answer, timeout=1.0)
        except TimeoutError:
            return None
        return match.group(1) if match else None

    def _report_faults(
        self, scores: list[float | None], answers: list["_JudgeAnswer"], prompts: list[str], completions: list[str]
    ) -> None:
        faults = [index for index, score in enumerate(scores) if score is None]
        if not faults:
            return
        self.faults += len(faults)
        low, high = self._config.scale
        what = (
            f"found no number from {low:g} to {high:g} in {len(faults)} of {len(scores)} replies of "
            f"{self._config.url}, first {shortened(answers[faults[0]].text, 200)} on "
            f"{sample(faults[0], prompts, completions)}"
        )
        if len(faults) == len(scores):
            raise RunError(f"{self._label}: {what}; check the reward's `prompt`, `scale`, `number` and `max_tokens`.")
        self._stage.say(f"{self._label}: {what}; these completions get no reward.")


@dataclass(frozen=True)
class _JudgeAnswer:
    """Reply of the judge, or the reason why there is none (`judged` is False)."""

    text: str
    judged: bool = True


class _EndedError(Exception):
    """Raised in a request whose batch was ended by another thread."""


class _Asking:
    """Requests of one batch, which another thread can end all at once."""

    def __init__(
        self, connect: Callable[[], http.client.HTTPConnection], headers: dict[str, str], label: str, config: HttpReward
    ) -> None:
        self._connect, self._headers, self._label, self._config = connect, headers, label, config
        self._path = path_of(config.url)
        self._ended = threading.Event()
        self._live: set[socket.socket] = set()
        self._last_fault = ""

    def answer(self, body: bytes) -> _JudgeAnswer:
        """Send one request, repeatedly if necessary, and return the judge's reply.

        Raises:
            UserError: the endpoint rejects the request, or its certificate is not trusted.
            _EndedError: the batch was ended.
        """
        pause = FIRST_PAUSE
        while not self._ended.is_set():
            try:
                status, reply = self._post(body)
            except ssl.SSLCertVerificationError as error:
                raise UserError(
                    f"{self._label}: the certificate of {self._config.url} is not trusted ({error.verify_message}); "
                    "set SSL_CERT_FILE to the certificate file of the authority that signed it."
                ) from error
            except (OSError, http.client.HTTPException, UnicodeError) as error:
                self._last_fault = f"{type(error).__name__}: {error}"
            else:
                text = reply.decode(errors="replace")
                if status == 200:
                    return _content(text)
                if status in UNTAKEN:
                    return _JudgeAnswer(f"HTTP {status}: {text}", judged=False)
                if status != 429 and status < 500:
                    raise UserError(
                        f"{self._label}: {self._config.url} rejected the request with HTTP {status}: "
                        f"{shortened(text, 300)}; check the reward's `url`, `model` and `api_key_env`."
                    )
                self._last_fault = f"HTTP {status}"
            self._ended.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        raise _EndedError

    def end(self) -> None:
        """End all requests, including those waiting for a retry; a request that is connecting ends within 10 s."""
        self._ended.set()
        for connected in self._live.copy():
            _cut(connected)

    def late(self, missing: int, total: int) -> RunError:
        """Return the error of a batch that exceeded the time limit."""
        fault = f" (last fault: {self._last_fault})" if self._last_fault else ""
        return RunError(
            f"{self._label} did not finish within its time_limit of {self._config.time_limit:g} s: {missing} of "
            f"{total} replies of {self._config.url} are missing{fault}; check that the server is running and fast "
            "enough, or change the reward's `time_limit` or `at_once`."
        )

    def _post(self, body: bytes) -> tuple[int, bytes]:
        connection = self._connect()
        try:
            connection.connect()
            with self._cuttable(connection.sock):
                connection.sock.settimeout(None)  # `end` interrupts it, so no timeout of its own is needed
                connection.request("POST", self._path, body, self._headers)
                response = connection.getresponse()
                return response.status, response.read(LARGEST_REPLY)
        finally:
            connection.close()

    @contextmanager
    def _cuttable(self, connected: socket.socket) -> Iterator[None]:
        self._live.add(connected)
        try:
            # Checked after `add`, so that an `end` that comes later finds the socket in `_live`.
            if self._ended.is_set():
                raise _EndedError
            yield
        finally:
            self._live.discard(connected)


def endpoint(url: str, label: str) -> Callable[[], http.client.HTTPConnection]:
    """Return a function that makes connections to the host of a URL.

    Raises:
        UserError: the URL is not valid, or has a user name, query or fragment.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"{label}: its `url` is not valid ({error}).") from error
    if not host or parts.username is not None or parts.query or parts.fragment:
        raise UserError(
            f"{label}: expected a `url` of the form http://host:port/v1, without user name, query and fragment; put an "
            "API key into the environment variable that `api_key_env` names."
        )
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return lambda: kind(host, port, timeout=CONNECTING)


def path_of(url: str) -> str:
    """Return the path of the URL, with /chat/completions appended unless it is there."""
    path = urlsplit(url).path.rstrip("/")
    return path if path.endswith("/chat/completions") else path + "/chat/completions"


def _content(reply: str) -> _JudgeAnswer:
    """Extract the text from a chat completion."""
    try:
        text = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return _JudgeAnswer(f"not a chat completion: {reply}", judged=False)
    return _JudgeAnswer(text) if isinstance(text, str) else _JudgeAnswer("a chat completion without text", judged=False)


def last_number(text: str, best: float) -> str | None:
    """Return the last number of a text, or None; "7/10" and "7 out of 10" give 7 if 10 is the best number."""
    text = regex.sub(rf"(?:/|\bout of) ?{regex.escape(f'{best:g}')}(?:\.0+)?(?![\w]|\.\d)", "", text)
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None


def _cut(connected: socket.socket) -> None:
    """Shut a socket down, which wakes a thread that is sending or receiving; closing it would not."""
    try:
        connected.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
