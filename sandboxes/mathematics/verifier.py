"""Verification of mathematics: compares the answer of a completion with the true one.

Plain numbers, texts and structures of them are compared exactly, here; everything else by math-verify in a child
process, which is killed at the time limit of its sample and replaced. Works from any thread and from async code, and
starts no process before one is needed.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial

from gemsmith.sandboxes.mathematics.characters import plain
from gemsmith.sandboxes.mathematics.comparison import at_once
from gemsmith.sandboxes.mathematics.extraction import find_answer, stated_answer
from gemsmith.sandboxes.mathematics.pool import ComparisonOutcome, MathPool
from gemsmith.sandboxes.verdict import OverdueError, Status, Verdict
from gemsmith.sandboxes.verdict_cache import VerdictMemory

Question = tuple[str, str]  # answer, truth


class MathVerifier:
    """Verifier of completions against true answers, each within its own time limit.

    Args:
        workers: maximum number of processes. Default: one per core, at most 4.
        time_limit: seconds that one comparison may compute; its worker is killed then. On a machine so busy that it
            gets no processor time, it is killed after 6 times as long.
    """

    def __init__(self, workers: int | None = None, time_limit: float = 5.0) -> None:
        self.workers = workers or min(4, os.cpu_count() or 1)
        self.time_limit = time_limit
        self._pool = MathPool(self.workers, time_limit)
        self._memory = VerdictMemory[Question]()

    def __enter__(self) -> "MathVerifier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every worker, including busy ones."""
        self._pool.close()

    def verify(
        self,
        completions: Sequence[str],
        answers: Sequence[str],
        within: float | None = None,
        finished: Sequence[bool] | None = None,
    ) -> list[Verdict]:
        """Return one verdict for each completion, in order.

        Args:
            completions: the policy's completions.
            answers: the true answers; "... #### 72", "\\boxed{72}" and "$72$" mean 72.
            within: time limit of the whole call, in seconds. Default: only each sample's own limit. If many comparisons
                need a worker, each gets its share of it, but at least a quarter of a second.
            finished: False for a completion that was cut off, which has no answer. Default: all are complete.

        Raises:
            OverdueError: the whole call took longer than `within`.
            ValueError: the lists differ in length.
        """
        asked = self._ask(completions, answers, within, finished)
        return asked.settled(wait(asked.futures.values(), timeout=asked.left()).not_done)

    async def verify_async(
        self,
        completions: Sequence[str],
        answers: Sequence[str],
        within: float | None = None,
        finished: Sequence[bool] | None = None,
    ) -> list[Verdict]:
        """Verify without blocking the event loop; waiting comparisons are dropped if the task is cancelled."""
        asked = await asyncio.to_thread(self._ask, completions, answers, within, finished)
        try:
            waiting = {asyncio.wrap_future(future): future for future in asked.futures.values()}
            if waiting:
                _, missing = await asyncio.wait(waiting, timeout=asked.left())
                return asked.settled({waiting[future] for future in missing})
            return asked.settled(set())
        finally:
            asked.cancel()

    def _ask(
        self,
        completions: Sequence[str],
        answers: Sequence[str],
        within: float | None,
        finished: Sequence[bool] | None,
    ) -> "_Asked":
        """Give the verdicts that need no mathematics, and submit the rest to the pool."""
        asked = _Asked(None if within is None else time.monotonic() + within)
        whole = [True] * len(completions) if finished is None else finished
        open_questions: list[Question] = []
        for completion, truth, ended in zip(completions, answers, whole, strict=True):
            verdict, question = _first_look(completion, stated_answer(truth), ended)
            if question is not None and (verdict := self._memory.recall(question)) is None:
                open_questions.append(question)
            asked.verdicts.append(verdict)
            asked.questions.append(question)
        for question in dict.fromkeys(open_questions):
            future = self._pool.submit({"answer": question[0], "truth": question[1]}, asked.deadline)
            future.add_done_callback(partial(self._remember, question))
            asked.futures[question] = future
        return asked

    def _remember(self, question: Question, done: Future[ComparisonOutcome]) -> None:
        if not done.cancelled():
            self._memory.keep(question, _verdict(question[0], done.result()))


@dataclass
class _Asked:
    """Verdicts of one call so far, and the comparisons that it waits for."""

    deadline: float | None

    def __post_init__(self) -> None:
        self.verdicts: list[Verdict | None] = []
        self.questions: list[Question | None] = []
        self.futures: dict[Question, Future[ComparisonOutcome]] = {}

    def left(self) -> float | None:
        """Return the seconds until the deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def settled(self, missing: set[Future[ComparisonOutcome]]) -> list[Verdict]:
        """Return all verdicts, unless some are missing."""
        if missing:
            self.cancel()
            late = [i for i, q in enumerate(self.questions) if q is not None and self.futures.get(q) in missing]
            raise OverdueError(late[0], len(late))
        for index, question in enumerate(self.questions):
            if question is not None and self.verdicts[index] is None:
                self.verdicts[index] = _verdict(question[0], self.futures[question].result())
        return [verdict for verdict in self.verdicts if verdict is not None]

    def cancel(self) -> None:
        """Cancel comparisons that no worker has begun."""
        for future in self.futures.values():
            future.cancel()


def _first_look(completion: str, truth: str, finished: bool) -> tuple[Verdict | None, Question | None]:
    """Return the verdict if it needs no mathematics; else the request for a worker."""
    if not finished:
        return Verdict(0.0, Status.UNPARSABLE, None, "cut off before its end", 0.0), None
    candidate = find_answer(completion)
    if candidate is None:
        return Verdict(0.0, Status.UNPARSABLE, None, "no answer found", 0.0), None
    found = at_once(candidate.text, truth)
    if found is None:
        return None, (plain(candidate.text), plain(truth))
    answer = candidate.text if len(candidate.text) <= 1000 else candidate.text[:100] + "..."
    return _verdict(answer, ComparisonOutcome(*found)), None


def _verdict(answer: str, outcome: ComparisonOutcome) -> Verdict:
    score = 1.0 if outcome.status is Status.RIGHT else 0.0
    return Verdict(score, outcome.status, answer, outcome.reason, outcome.seconds)
