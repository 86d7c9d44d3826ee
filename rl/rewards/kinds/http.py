"""The http reward: what a judge behind an OpenAI-style chat endpoint says of a completion, as a number in [0, 1]."""

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
"""Seconds before a request that failed is sent again: each pause is twice the one before."""
UNTAKEN = {400, 413, 422}
"""Statuses that one request may cause by what is in it, such as a completion too long for the judge."""
LARGEST_REPLY = 4 << 20
CONNECTING = 10.0
"""Seconds that connecting may take; only this outlasts the end of a wait."""
_NUMBER = regex.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w]|\.\d)")


class HttpJudge:
    """Scores in [0, 1]: the judge's number on the recipe's scale. Temperature 0, and the stage's seed.

    Requests that end with status 429 or 5xx, or without a reply, are sent again until the time limit. None, counted in
    `faults`, where an answer has no number on the scale and where the endpoint cannot take the request (one completion
    may be too long for it); a batch of such answers alone ends the run, and so does any other status than 200. Requests
    go straight to `url`: through no proxy of the environment, and past no redirect. A completion can talk a judge into
    a high number: no template prevents that.
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
        self._tell_faults(scores, answers, prompts, completions)
        return scores

    def close(self) -> None:
        """End what is under way; see `Reward.close`."""
        if self._asking is not None:
            self._asking.end()

    def _key(self) -> dict[str, str]:
        variable = self._config.api_key_env
        if variable is None:
            return {}
        key = os.environ.get(variable, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise UserError(
                f"{self._label} takes its key from the environment variable {variable}, which is not set to one; "
                f"export {variable}=..., or remove `api_key_env`."
            )
        return {"Authorization": f"Bearer {key}"}

    def _body(self, values: dict[str, Any]) -> bytes:
        try:
            asked = Formatter().vformat(self._config.prompt, (), values)
        except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
            raise UserError(
                f"{self._label}: its `prompt` cannot be filled ({type(error).__name__}: {error}); there are "
                f"{{prompt}}, {{completion}} and the columns {', '.join(sorted(values))}; double other braces."
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
        """The judge's answers, in the order of the requests."""
        asking = self._asking = _Asking(self._connect, self._headers, self._label, self._config)
        pool = ThreadPoolExecutor(min(self._config.at_once, len(bodies)), thread_name_prefix=self._label)
        try:
            asked = [pool.submit(asking.answer, body) for body in bodies]
            done, _ = wait(asked, timeout=self._config.time_limit, return_when=FIRST_EXCEPTION)
            missing = sum(not one.done() for one in asked)
            for one in done:
                one.result()  # a failure ends the waiting
            if missing:
                raise asking.late(missing, len(bodies))
            return [one.result() for one in asked]
        except _EndedError:
            raise RunError(f"{self._label} was closed while it waited for {self._config.url}.") from None
        finally:
            asking.end()
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, answer: "_JudgeAnswer") -> float | None:
        """The number in an answer, mapped from the scale to [0, 1]; None where there is none on the scale."""
        low, high = self._config.scale
        if not answer.judged:
            return None
        found = last_number(answer.text, high) if self._number is None else self._captured(answer.text)
        try:
            number = float(found or "")
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

    def _tell_faults(
        self, scores: list[float | None], answers: list["_JudgeAnswer"], prompts: list[str], completions: list[str]
    ) -> None:
        faults = [index for index, score in enumerate(scores) if score is None]
        if not faults:
            return
        self.faults += len(faults)
        low, high = self._config.scale
        what = (
            f"no number from {low:g} to {high:g} in {len(faults)} of {len(scores)} answers of {self._config.url}, the "
            f"first of them {shortened(answers[faults[0]].text, 200)} on {sample(faults[0], prompts, completions)}"
        )
        if len(faults) == len(scores):
            raise RunError(f"{self._label}: {what}; see its `prompt`, `scale`, `number` and `max_tokens`.")
        self._stage.say(f"{self._label}: {what}; they have no reward.")


@dataclass(frozen=True)
class _JudgeAnswer:
    """What the judge said, or (not judged) why it said nothing."""

    text: str
    judged: bool = True


class _EndedError(Exception):
    """The batch was ended while a request of it was under way."""


class _Asking:
    """The requests of one batch: they share a deadline, and can all be ended from another thread."""

    def __init__(
        self, connect: Callable[[], http.client.HTTPConnection], headers: dict[str, str], label: str, config: HttpReward
    ) -> None:
        self._connect, self._headers, self._label, self._config = connect, headers, label, config
        self._path = path_of(config.url)
        self._ended = threading.Event()
        self._live: set[socket.socket] = set()
        self._last_fault = ""

    def answer(self, body: bytes) -> _JudgeAnswer:
        """What the judge says to one request, however often it must be sent.

        Raises:
            UserError: the endpoint refuses the request, or its certificate is not trusted.
            _EndedError: the batch was ended.
        """
        pause = FIRST_PAUSE
        while not self._ended.is_set():
            try:
                status, reply = self._post(body)
            except ssl.SSLCertVerificationError as error:
                raise UserError(
                    f"{self._label}: the certificate of {self._config.url} is not trusted ({error.verify_message}); "
                    "export SSL_CERT_FILE with the file of the authority that signed it."
                ) from error
            except (OSError, http.client.HTTPException, UnicodeError) as error:
                self._last_fault = f"{type(error).__name__}: {error}"
            else:
                said = reply.decode(errors="replace")
                if status == 200:
                    return _content(said)
                if status in UNTAKEN:
                    return _JudgeAnswer(f"HTTP {status}: {said}", judged=False)
                if status != 429 and status < 500:
                    raise UserError(
                        f"{self._label}: {self._config.url} refuses with HTTP {status}: {shortened(said, 300)}; see "
                        "the reward's `url`, `model` and `api_key_env`."
                    )
                self._last_fault = f"HTTP {status}"
            self._ended.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        raise _EndedError

    def end(self) -> None:
        """End every request, also those that wait to be sent again; one that still connects has its 10 s."""
        self._ended.set()
        for connected in self._live.copy():
            _cut(connected)

    def late(self, missing: int, total: int) -> RunError:
        """What a batch ends with that was not done in time."""
        fault = f" (the last fault: {self._last_fault})" if self._last_fault else ""
        return RunError(
            f"{self._label} was not done within its time_limit of {self._config.time_limit:g} s: {missing} of {total} "
            f"answers of {self._config.url} are missing{fault}; see whether it is up and keeps pace, then raise the "
            "reward's `time_limit` or change `at_once`."
        )

    def _post(self, body: bytes) -> tuple[int, bytes]:
        connection = self._connect()
        try:
            connection.connect()
            with self._cuttable(connection.sock):
                connection.sock.settimeout(None)  # who waits for the batch ends this
                connection.request("POST", self._path, body, self._headers)
                response = connection.getresponse()
                return response.status, response.read(LARGEST_REPLY)
        finally:
            connection.close()

    @contextmanager
    def _cuttable(self, connected: socket.socket) -> Iterator[None]:
        self._live.add(connected)
        try:
            if self._ended.is_set():  # asked after `add`: who ends the batch later finds the socket
                raise _EndedError
            yield
        finally:
            self._live.discard(connected)


def endpoint(url: str, label: str) -> Callable[[], http.client.HTTPConnection]:
    """Makes connections to the host of an address.

    Raises:
        UserError: the address cannot be used.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"{label}: its `url` is no address ({error}).") from error
    if not host or parts.username is not None or parts.query or parts.fragment:
        raise UserError(
            f"{label}: its `url` is not of the form http://host:port/v1, without user name, query and fragment; a key "
            "goes into the environment variable that `api_key_env` names."
        )
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return lambda: kind(host, port, timeout=CONNECTING)


def path_of(url: str) -> str:
    """Where chat completions are, from an address with or without it."""
    path = urlsplit(url).path.rstrip("/")
    return path if path.endswith("/chat/completions") else path + "/chat/completions"


def _content(reply: str) -> _JudgeAnswer:
    """The text in a chat completion."""
    try:
        text = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return _JudgeAnswer(f"no chat completion: {reply}", judged=False)
    return _JudgeAnswer(text) if isinstance(text, str) else _JudgeAnswer("a chat completion without text", judged=False)


def last_number(text: str, best: float) -> str | None:
    """The last number of a text; in "7/10" and "7 out of 10" it is 7, where 10 is the best number."""
    text = regex.sub(rf"(?:/|\bout of) ?{regex.escape(f'{best:g}')}(?:\.0+)?(?![\w]|\.\d)", "", text)
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None


def _cut(connected: socket.socket) -> None:
    """Wake a thread that is sending or receiving; closing would not."""
    try:
        connected.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
