"""A sandbox: takes jobs and returns verdicts, with a pool of jails that are replaced when they are lost."""

import asyncio
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

from gemsmith.sandboxes.code.backends.backend import Backend, Role
from gemsmith.sandboxes.code.backends.jail import Jail, JailError, Keeper
from gemsmith.sandboxes.code.evidence import Detail, Evidence
from gemsmith.sandboxes.code.jobs import Calls, Check, Job, Script, Stdio
from gemsmith.sandboxes.code.judging import JobOutcome, judge_calls, judge_check, judge_script, judge_stdio
from gemsmith.sandboxes.verdict import OverdueError, Status, Verdict

STATUS: dict[Detail, Status] = {
    "pass": Status.RIGHT,
    "fail": Status.WRONG,
    "protocol": Status.WRONG,
    "invalid_test": Status.WRONG,
    "compile_error": Status.UNPARSABLE,
    "timeout": Status.TIMEOUT,
    "memory": Status.OUT_OF_MEMORY,
    "crash": Status.CRASHED,
    "output_limit": Status.CRASHED,
    "infra_error": Status.INFRASTRUCTURE_FAULT,
}


class Judging(Protocol):
    """Anything that judges one job: jails here, or a remote service."""

    name: str

    def run(self, job: Job) -> Verdict:
        """Return the verdict on a job; never raises because of what the job does."""

    def close(self) -> None:
        """Release everything."""


class Sandbox:
    """Judge of programs. Usable from any thread.

    Args:
        judging: object that judges one job.
        workers: number of jobs that `map` judges at once.
    """

    def __init__(self, judging: Judging, workers: int) -> None:
        self.backend = judging.name
        self.workers = workers
        self._judging = judging
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, job: Job) -> Verdict:
        """Return the verdict on one job."""
        return self._judging.run(job)

    def map(self, jobs: Sequence[Job], within: float | None = None) -> list[Verdict]:
        """Return one verdict for each job, in order.

        Args:
            jobs: the jobs.
            within: time limit of the whole call, in seconds. Default: only each job's own limit.

        Raises:
            OverdueError: the whole call took longer than `within`.
        """
        futures = [self._threads.submit(self._judging.run, job) for job in jobs]
        missing = wait(futures, timeout=within).not_done
        if missing:
            for future in missing:
                future.cancel()
            late = [index for index, future in enumerate(futures) if future in missing]
            raise OverdueError(late[0], len(late))
        return [future.result() for future in futures]

    async def run_async(self, job: Job) -> Verdict:
        """Return the verdict on one job, while other coroutines run."""
        return await asyncio.wrap_future(self._threads.submit(self._judging.run, job))

    def close(self) -> None:
        """End everything, including running jobs: they end as infrastructure faults."""
        self._judging.close()
        self._threads.shutdown(wait=True, cancel_futures=True)


class Pool:
    """Jails of this machine: for candidates and, once a test needs one, for judges."""

    def __init__(self, backend: Backend, workers: int) -> None:
        self.name = backend.name
        self._backend = backend
        self._keeper = Keeper()
        self._slots: dict[Role, queue.LifoQueue[Jail | None]] = {
            "candidate": queue.LifoQueue(),
            "judge": queue.LifoQueue(),
        }
        for slots in self._slots.values():
            for _ in range(workers):
                slots.put(None)
        self._jails: set[Jail] = set()
        self._lock = threading.Lock()
        self._closed = False

    def run(self, job: Job) -> Verdict:
        """Return the verdict on a job; repeat it in a second jail if the first is lost."""
        started = time.monotonic()
        outcome = unrunnable(job, self.name)
        lost: list[_LostError] = []
        while outcome is None:
            try:
                outcome = self._attempt(job)
            except _LostError as loss:
                lost.append(loss)
                if self._closed:
                    outcome = JobOutcome("infra_error", "the sandbox was closed")
                elif len(lost) == 2:
                    outcome = _loss(lost)
        return verdict_of(job, outcome, self.name, time.monotonic() - started)

    def close(self) -> None:
        """End every jail."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            jails = list(self._jails)
        for jail in jails:
            jail.kill()
        self._keeper.close()

    def _attempt(self, job: Job) -> JobOutcome:
        jails: list[Jail] = []
        try:
            with self._jail("candidate", jails) as candidate:
                if isinstance(job, Check):
                    with self._jail("judge", jails) as judge:
                        return judge_check(job, candidate, judge)
                if isinstance(job, Calls):
                    return judge_calls(job, candidate)
                if isinstance(job, Stdio):
                    return judge_stdio(job, candidate)
                return judge_script(job, candidate)
        except (JailError, OSError) as error:
            raise _LostError(f"a jail {error}", any(jail.had_control for jail in jails)) from None

    @contextmanager
    def _jail(self, role: Role, jails: list[Jail]) -> Iterator[Jail]:
        """Yield a jail for one attempt; if anything fails in it, it is not used again."""
        jail = self.take(role)
        jails.append(jail)
        lost = True
        try:
            yield jail
            lost = not jail.alive
        finally:
            self.give_back(role, jail, lost=lost)

    def take(self, role: Role) -> Jail:
        """Return an idle jail, for the calling thread alone.

        Raises:
            JailError: none could be started.
        """
        jail = self._slots[role].get()
        if jail is not None and jail.alive and not self._closed:
            jail.forget_job()
            return jail
        if jail is not None:
            self._forget(jail)
        try:
            jail = self._start(role)
        except BaseException:
            self._slots[role].put(None)
            raise
        return jail

    def _start(self, role: Role) -> Jail:
        if not self._closed:
            jail = self._backend.start(role, self._keeper)
            with self._lock:
                if not self._closed:
                    self._jails.add(jail)
                    return jail
            jail.close()
        raise JailError("was not started: the sandbox is closed")

    def give_back(self, role: Role, jail: Jail, *, lost: bool) -> None:
        """Put a jail back, or a new one in its place."""
        if lost:
            self._forget(jail)
        self._slots[role].put(None if lost else jail)

    def _forget(self, jail: Jail) -> None:
        with self._lock:
            self._jails.discard(jail)
        jail.close()


def verdict_of(job: Job, outcome: JobOutcome, backend: str, seconds: float) -> Verdict:
    """Return an outcome as a verdict, with its evidence."""
    evidence = Evidence(
        outcome.detail,
        backend,
        tuple(outcome.cases),
        outcome.cpu,
        seconds,
        outcome.max_rss,
        outcome.exit,
        outcome.stdout,
        outcome.stderr,
        forgeable=isinstance(job, Script) or backend == "unsafe",
    )
    status = STATUS[outcome.detail]
    return Verdict(float(status is Status.RIGHT), status, job.source, outcome.reason, seconds, evidence)


class _LostError(Exception):
    """An attempt failed because of a jail; `by_job`: the program may have caused it."""

    def __init__(self, message: str, by_job: bool) -> None:
        super().__init__(message)
        self.by_job = by_job


def _loss(lost: list[_LostError]) -> JobOutcome:
    """Return the verdict on a job that has lost two jails."""
    if any(loss.by_job for loss in lost):
        return JobOutcome("crash", f"{lost[-1]}, as was another one before")
    return JobOutcome("infra_error", str(lost[-1]))


def unrunnable(job: Job, backend: str) -> JobOutcome | None:
    """Return the outcome of a job that needs no jail."""
    if job.limits.processes and backend == "landlock":
        return JobOutcome("invalid_test", "the landlock backend allows no processes")
    try:
        size = len(job.source.encode("utf-8", "surrogatepass"))
    except UnicodeError as error:
        return JobOutcome("compile_error", str(error))
    if size > job.limits.source:
        return JobOutcome("compile_error", f"the program has {size} bytes, where {job.limits.source} are allowed")
    if isinstance(job, Stdio):
        try:
            for case in job.cases:
                case.stdin.encode()
        except UnicodeError:
            return JobOutcome("invalid_test", "the input of a case is not text: it holds half a character")
    return None
