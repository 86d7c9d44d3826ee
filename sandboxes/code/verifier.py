"""Verification of code: runs the program of a completion against its tests.

Programs run in a sandbox, from any thread. A verdict of right, wrong or unparsable is cached, so that the same program
is not run by the same tests again.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace

from gemsmith.sandboxes.code.jobs import Limits
from gemsmith.sandboxes.code.records import Problem
from gemsmith.sandboxes.code.selection import open_sandbox
from gemsmith.sandboxes.verdict import OverdueError, Status, Verdict
from gemsmith.sandboxes.verdict_cache import VerdictMemory

Question = bytes


class CodeVerifier:
    """Verifier of completions against problems.

    Args:
        backend: backend of the sandbox; see `open_sandbox`.
        workers: number of programs judged at once. Default: one per core.
        limits: limits of one program.
        url: address of a remote backend.

    Raises:
        SandboxUnavailableError: this machine cannot run untrusted programs that way; the message says why, and what to
            do.
    """

    def __init__(
        self, backend: str = "auto", workers: int | None = None, limits: Limits | None = None, url: str | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.workers = workers or os.cpu_count() or 1
        self._sandbox = open_sandbox(backend, workers=self.workers, url=url)
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="code-verifier")
        self._memory = VerdictMemory[Question]()

    def __enter__(self) -> "CodeVerifier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def backend(self) -> str:
        """Return the name of the isolation in use."""
        return self._sandbox.backend

    def close(self) -> None:
        """End the sandbox, even if it is busy."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._sandbox.close()

    def verify(
        self,
        completions: Sequence[str],
        problems: Sequence[Problem],
        within: float | None = None,
        finished: Sequence[bool] | None = None,
    ) -> list[Verdict]:
        """Return one verdict for each completion, in order; `answer` is the program that was judged.

        Args:
            completions: the policy's completions.
            problems: the problem of each completion.
            within: time limit of the whole call, in seconds. Default: only each program's own limit.
            finished: False for a completion that was cut off, which has no program. Default: all are complete.

        Raises:
            OverdueError: the whole call took longer than `within`.
            ValueError: the lists differ in length.
        """
        whole = [True] * len(completions) if finished is None else finished
        verdicts: list[Verdict | Future[Verdict]] = []
        asked: dict[Question, Future[Verdict]] = {}
        for completion, problem, ended in zip(completions, problems, whole, strict=True):
            program = problem.program(completion) if ended else None
            if program is None:
                reason = "no program found" if ended else "cut off before its end"
                verdicts.append(Verdict(0.0, Status.UNPARSABLE, None, reason, 0.0))
                continue
            question = _question(program, problem)
            if (known := self._memory.recall(question)) is not None:
                verdicts.append(known)
                continue
            if question not in asked:
                asked[question] = self._threads.submit(self._judge, program, problem, question)
            verdicts.append(asked[question])
        missing = wait(asked.values(), timeout=within).not_done
        if missing:
            for future in missing:
                future.cancel()
            late = [index for index, verdict in enumerate(verdicts) if verdict in missing]
            raise OverdueError(late[0], len(late))
        return [verdict.result() if isinstance(verdict, Future) else verdict for verdict in verdicts]

    def _judge(self, program: str, problem: Problem, question: Question) -> Verdict:
        verdict = replace(self._sandbox.run(problem.job(program, self.limits)), answer=program)
        self._memory.keep(question, verdict)
        return verdict


def _question(program: str, problem: Problem) -> Question:
    return hashlib.sha256(f"{problem.key}\0{program}".encode(errors="surrogatepass")).digest()
