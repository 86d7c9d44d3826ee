"""Ground truth in mathematics: is the answer of a completion equal to the true one?

Plain numbers are compared exactly, here; texts by their normalised wording. Everything else goes to math-verify in a
child process, which is killed at the time limit of its sample and replaced. Works from any thread, and starts no
process before one is needed.
"""

import json
import os
import queue
import re
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from fractions import Fraction

from sandboxes.child import Child, ChildError, ChildExitedError, ChildTimeoutError
from sandboxes.extraction import LONGEST_EXPRESSION, find_answer, stated_answer, words
from sandboxes.numerals import plain_number, undecorated
from sandboxes.verdict import Status, Verdict

DEEPEST = 60
REMEMBERED = 65_536
PATIENCE = 6.0
LASTING = (Status.RIGHT, Status.WRONG, Status.UNPARSABLE)
"""Verdicts that say nothing about the machine: they are remembered, and their worker lives on."""
_OUTSIDE_SIGNALS = (-9, -15)  # nobody's arithmetic sends these: the system or a person ended the worker
_SPACES = re.compile(r"\\left|\\right|\\displaystyle|\\[,;:! ]|[\s$`~]")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)(?:\\[,;: ]|\s)+(?=\d)")
_WRAPPED = re.compile(r"\\(?:text|mbox|mathrm|textrm|textbf)\{([^{}]*)\}")
_TEN_TO_THE = re.compile(r"(?:\\times|\\cdot|×|\*)\s*10\s*\^\s*(?:\{[^{}]*\}|\d)")
_UNDONE = re.compile(
    r"[+*×·÷!^]|\\(?:times|cdot|div|binom|sqrt|sum|prod|int)(?![a-z])|(?<=[\w)}])\s*-|sqrt|\d\s+\d|(?:/|frac).*(?:/|frac)"
)
_DIVISION = re.compile(r"/|\\[dt]?frac")
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])|(?<=\d)[A-Za-z]")

Question = tuple[str, str]  # answer, truth


class OverdueError(Exception):
    """`verify` was not done in the time that it was given. `index` is a completion whose verdict was still missing."""

    def __init__(self, index: int, missing: int) -> None:
        super().__init__(f"{missing} verdicts missing")
        self.index = index
        self.missing = missing


class MathVerifier:
    """Verifies completions against true answers, each within its own time limit.

    Args:
        workers: processes at most; None: one a core, at most 4.
        time_limit: seconds that one comparison may compute; its worker is killed then. On a machine so busy that it
            gets no processor, it is killed after PATIENCE times as long.
    """

    def __init__(self, workers: int | None = None, time_limit: float = 5.0) -> None:
        self.workers = workers or min(4, os.cpu_count() or 1)
        self.time_limit = time_limit
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="math-verifier")
        self._slots: queue.LifoQueue[Child | None] = queue.LifoQueue()
        for _ in range(self.workers):
            self._slots.put(None)
        self._children: set[Child] = set()
        self._known: OrderedDict[Question, Verdict] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> "MathVerifier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every worker, also one that is busy."""
        with self._lock:
            self._closed = True
            children, self._children = self._children, set()
        for child in children:
            child.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def verify(self, completions: list[str], answers: list[str], within: float | None = None) -> list[Verdict]:
        """One verdict for each completion, in order.

        Args:
            completions: what the policy said.
            answers: the true answers; "... #### 72", "\\boxed{72}" and "$72$" state 72.
            within: seconds for the whole call; None: no limit but each sample's own.

        Raises:
            OverdueError: the whole call took longer than `within`.
            ValueError: the lists differ in length.
        """
        verdicts: list[Verdict | None] = []
        asked: dict[Question, Future[Verdict]] = {}
        questions: list[Question | None] = []
        for completion, truth in zip(completions, map(stated_answer, answers), strict=True):
            verdict, question = _at_once(completion, truth)
            if question is not None and (verdict := self._remembered(question)) is None and question not in asked:
                asked[question] = self._threads.submit(self._judge, *question)
            verdicts.append(verdict)
            questions.append(question)
        missing = wait(asked.values(), timeout=within).not_done
        if missing:
            for future in missing:
                future.cancel()
            late = [i for i, q in enumerate(questions) if q is not None and q in asked and asked[q] in missing]
            raise OverdueError(late[0], len(late))
        for i, question in enumerate(questions):
            if question is not None and verdicts[i] is None:
                verdicts[i] = asked[question].result()
        return [verdict for verdict in verdicts if verdict is not None]

    def _remembered(self, question: Question) -> Verdict | None:
        with self._lock:
            verdict = self._known.get(question)
            if verdict is not None:
                self._known.move_to_end(question)
            return verdict

    def _remember(self, question: Question, verdict: Verdict) -> None:
        with self._lock:
            self._known[question] = replace(verdict, seconds=0.0)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)

    def _judge(self, answer: str, truth: str) -> Verdict:
        """Ask a worker; once more, with a fresh one, when the worker is lost."""
        start = time.monotonic()
        status, reason = Status.INFRASTRUCTURE_FAULT, ""
        for _ in range(2):
            child = self._slots.get()
            try:
                if child is None:
                    child = self._start()
                request = json.dumps({"answer": answer, "truth": truth}).encode()
                reply = json.loads(child.call(request, self.time_limit, PATIENCE))
                status, reason = Status(reply["status"]), reply["reason"]
            except ChildTimeoutError:
                status, reason = Status.TIMEOUT, f"comparison stopped after {self.time_limit:g} s"
            except ChildError as error:
                status, reason = _loss(child, error)
            finally:
                if child is not None and status not in LASTING:
                    self._discard(child)
                    child = None
                self._slots.put(child)
            if status not in (Status.CRASHED, Status.INFRASTRUCTURE_FAULT):
                break
        verdict = _verdict(status, answer, reason, time.monotonic() - start)
        if status in LASTING:
            self._remember((answer, truth), verdict)
        return verdict

    def _start(self) -> Child:
        try:
            child = Child(
                "sandboxes.math_worker:open_comparison",
                environment={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
                quiet=True,
            )
        except ChildTimeoutError as error:
            raise ChildExitedError(f"did not start: {error}", None) from error
        with self._lock:
            if not self._closed:
                self._children.add(child)
                return child
        child.kill()
        raise ChildExitedError("was closed", None)

    def _discard(self, child: Child) -> None:
        child.kill()
        with self._lock:
            self._children.discard(child)


def _loss(child: Child | None, error: ChildError) -> tuple[Status, str]:
    """Whose fault it is that a worker was lost: the sample's, or the machine's."""
    by_itself = isinstance(error, ChildExitedError) and error.code is not None and error.code not in _OUTSIDE_SIGNALS
    if child is not None and by_itself:
        return Status.CRASHED, f"the worker {error}"
    return Status.INFRASTRUCTURE_FAULT, f"the mathematics worker {error}"


def _verdict(status: Status, answer: str | None, reason: str, seconds: float = 0.0) -> Verdict:
    return Verdict(1.0 if status is Status.RIGHT else 0.0, status, answer, reason, seconds)


def _at_once(completion: str, truth: str) -> tuple[Verdict | None, Question | None]:
    """The verdict, where it needs no parsing; else the question for a worker."""
    candidate = find_answer(completion)
    if candidate is None:
        return _verdict(Status.UNPARSABLE, None, "no answer found"), None
    answer = candidate.text
    if len(answer) > LONGEST_EXPRESSION:
        return _verdict(Status.UNPARSABLE, answer[:100] + "...", f"longer than {LONGEST_EXPRESSION} characters"), None
    true_number, number = plain_number(truth), _number(answer)
    if true_number is not None and _undone(answer, true_number.denominator == 1 and not _DIVISION.search(truth)):
        return _verdict(Status.WRONG, answer, "arithmetic that was not carried out"), None
    if true_number is not None and number is not None:
        equal = number == true_number
        return _verdict(Status.RIGHT if equal else Status.WRONG, answer, "compared as exact numbers"), None
    if _wording(answer) == _wording(truth):
        return _verdict(Status.RIGHT, answer, "the same text"), None
    if _is_text(truth):
        return _verdict(Status.WRONG, answer, "compared as text"), None
    if _is_text(answer):
        return _verdict(Status.UNPARSABLE, answer, "words, where mathematics was expected"), None
    if (true_number is None) != (number is None) and _has_variable(answer if number is None else truth):
        return _verdict(Status.WRONG, answer, "a variable on one side, a number on the other"), None
    if _depth(answer) > DEEPEST:
        return _verdict(Status.UNPARSABLE, answer, f"nested deeper than {DEEPEST} brackets"), None
    return None, (_bare(answer), _bare(truth))


def _number(answer: str) -> Fraction | None:
    """The plain number that an answer is, or that its one equation ends in: 15 * 8 = 120."""
    left, equals, right = answer.rpartition("=")
    if not equals or "=" in left or words(left):
        right = answer
    return plain_number(right)


def _undone(answer: str, whole: bool) -> bool:
    """Whether an answer leaves arithmetic to the reader: 3 + 4 for 7, and 84/2 for a whole number.

    A policy that repeats the question would be right otherwise. Powers of ten are notation.
    """
    last = _TEN_TO_THE.sub("", undecorated(answer).rpartition("=")[2].strip().removeprefix("-"))
    mixed = plain_number(answer) is not None and not whole
    return not mixed and bool(_UNDONE.search(last) or (whole and _DIVISION.search(last)))


def _has_variable(text: str) -> bool:
    return bool(_VARIABLE.search(re.sub(r"\\[A-Za-z]+", " ", _WRAPPED.sub(" ", text))))


def _wording(text: str) -> str:
    bare = _SPACES.sub("", _BETWEEN_DIGITS.sub("_", _WRAPPED.sub(r"\1", text))).strip("*")
    bare = bare.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").rstrip(".")
    return bare.casefold() if words(text) else bare


def _is_text(text: str) -> bool:
    return bool(words(undecorated(text))) or len(text) > LONGEST_EXPRESSION


def _bare(text: str) -> str:
    return re.sub(r"(?<!\\)\$|\\[()\[\]](?!\w)|\*\*|\\?%", " ", text).replace("−", "-").strip().rstrip(".")


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest
