"""Ground truth in code: does the program of a completion pass its tests?

Programs run in a sandbox, from any thread. A program that was judged right, wrong or unparsable by some tests is
remembered and not run by them again.
"""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace

from sandboxes.code.jobs import Limits
from sandboxes.code.records import Problem
from sandboxes.code.selection import open_sandbox
from sandboxes.verdict import OverdueError, Status, Verdict

REMEMBERED = 65_536
LASTING = (Status.RIGHT, Status.WRONG, Status.UNPARSABLE)
"""Verdicts that say nothing about the machine."""

Question = bytes


class CodeVerifier:
    """Verifies completions against problems.

    Args:
        backend: of the sandbox; see `open_sandbox`.
        workers: programs judged at once; None: one a core.
        limits: what one program may use.
        url: where a remote backend is.

    Raises:
        SandboxUnavailableError: this machine cannot run untrusted programs that way; says why, and the way out.
    """

    def __init__(
        self, backend: str = "auto", workers: int | None = None, limits: Limits | None = None, url: str | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.workers = workers or os.cpu_count() or 1
        self._sandbox = open_sandbox(backend, workers=self.workers, url=url)
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="code-verifier")
        self._known: OrderedDict[Question, Verdict] = OrderedDict()
        self._lock = threading.Lock()

    def __enter__(self) -> "CodeVerifier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def backend(self) -> str:
        """What keeps the programs in."""
        return self._sandbox.backend

    def close(self) -> None:
        """End the sandbox, also where it is busy."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._sandbox.close()

    def verify(
        self,
        completions: Sequence[str],
        problems: Sequence[Problem],
        within: float | None = None,
        finished: Callable[[int, Verdict], None] | None = None,
    ) -> list[Verdict]:
        """One verdict for each completion, in order; `answer` is the program that was judged.

        Args:
            completions: what the policy said.
            problems: what each of them answers.
            within: seconds for the whole call; None: no limit but each program's own.
            finished: called in this thread with index and verdict as soon as a verdict is there.

        Raises:
            OverdueError: the whole call took longer than `within`.
            ValueError: the lists differ in length.
        """
        verdicts: dict[int, Verdict] = {}
        asked: dict[Question, Future[Verdict]] = {}
        waiting: dict[Future[Verdict], list[int]] = {}

        def settle(index: int, verdict: Verdict) -> None:
            verdicts[index] = verdict
            if finished is not None:
                finished(index, verdict)

        for index, (completion, problem) in enumerate(zip(completions, problems, strict=True)):
            program = problem.program(completion)
            if program is None:
                settle(index, Verdict(0.0, Status.UNPARSABLE, None, "no program found", 0.0))
                continue
            question = _question(program, problem)
            if (known := self._remembered(question)) is not None:
                settle(index, known)
                continue
            if question not in asked:
                asked[question] = self._threads.submit(self._judge, program, problem, question)
            waiting.setdefault(asked[question], []).append(index)
        try:
            for future in as_completed(waiting, timeout=within):
                for index in waiting[future]:
                    settle(index, future.result())
        except TimeoutError as error:
            late = sorted(index for future, indices in waiting.items() for index in indices if index not in verdicts)
            for future in waiting:
                future.cancel()
            raise OverdueError(late[0], len(late)) from error
        return [verdicts[index] for index in range(len(completions))]

    def _judge(self, program: str, problem: Problem, question: Question) -> Verdict:
        verdict = replace(self._sandbox.run(problem.job(program, self.limits)), answer=program)
        if verdict.status in LASTING:
            with self._lock:
                self._known[question] = replace(verdict, seconds=0.0)
                if len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
        return verdict

    def _remembered(self, question: Question) -> Verdict | None:
        with self._lock:
            verdict = self._known.get(question)
            if verdict is not None:
                self._known.move_to_end(question)
            return verdict


def _question(program: str, problem: Problem) -> Question:
    return hashlib.sha256(f"{problem.key}\0{program}".encode(errors="surrogatepass")).digest()
