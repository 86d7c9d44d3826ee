"""Worker processes that compare mathematical texts, each comparison within its own limit.

A comparison that hangs, crashes or exhausts memory costs only its worker, which is killed and replaced by a fresh fork;
requests that waited for it are sent to the new one. Nothing is started before it is needed.
"""

import json
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from gemsmith.sandboxes.channel import ChannelClosedError, ChildError, ChildHeldError, ChildTimeoutError
from gemsmith.sandboxes.fork_server import ForkServer, Worker
from gemsmith.sandboxes.verdict import Status

WORKER = "gemsmith.sandboxes.mathematics.worker:open_comparison"
PATIENCE = 6.0
AT_ONCE = 8
"""Requests that a worker receives in advance, so that it never waits for the next one."""
SHORTEST = 0.25
"""Seconds that a comparison may always compute, even if many share the time of a call."""
SHARED = 0.6
"""Share of a call's time for its comparisons; the rest is for killing, forking, and a busy machine."""
_HUGE = 1 << 29
"""Bytes of memory from which a worker killed by the system counts as killed for its memory."""
_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)  # nobody's arithmetic sends these
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


@dataclass(frozen=True)
class ComparisonOutcome:
    """The end of a comparison."""

    status: Status
    reason: str
    seconds: float = 0.0


@dataclass
class _Job:
    request: bytes
    deadline: float | None
    future: Future[ComparisonOutcome] = field(default_factory=Future)
    begun: float | None = None
    lost: int = 0


class MathPool:
    """Comparisons by math-verify in killable processes. Usable from any thread.

    Args:
        workers: maximum number of processes.
        time_limit: seconds that one comparison may compute. On a machine so busy that it gets no processor time, it is
            killed after PATIENCE times as long.
        entry: module that answers the requests, such as `gemsmith.sandboxes.mathematics.worker`.
    """

    def __init__(self, workers: int, time_limit: float, entry: str = WORKER) -> None:
        self.workers, self.time_limit, self._entry = workers, time_limit, entry
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._open = 0  # comparisons that are asked for and not settled
        self._threads: list[threading.Thread] = []
        self._server: ForkServer | None = None
        self._lock, self._starting = threading.Lock(), threading.Lock()
        self._closed = False

    def submit(self, request: dict[str, str], deadline: float | None = None) -> Future[ComparisonOutcome]:
        """Request a comparison.

        Args:
            request: a request for `gemsmith.sandboxes.mathematics.worker.compare`.
            deadline: time.monotonic() of the caller's limit for all its requests. Default: none. Near it, the remaining
                time is divided, so that a few comparisons cannot use up the time of all.
        """
        job = _Job(json.dumps(request).encode(), deadline)
        with self._lock:
            if self._closed:
                job.future.set_result(ComparisonOutcome(Status.INFRASTRUCTURE_FAULT, "the verifier was closed"))
                return job.future
            self._open += 1
            job.future.add_done_callback(self._one_less)
            self._jobs.put(job)
            if len(self._threads) < self.workers:
                name = f"math-verifier-{len(self._threads)}"
                self._threads.append(threading.Thread(target=self._serve, name=name, daemon=True))
                self._threads[-1].start()
        return job.future

    def close(self) -> None:
        """End every worker, including busy ones, and cancel waiting requests."""
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, []
        for job in self._taken(self._jobs.qsize()):
            job.future.cancel()
        for _ in threads:
            self._jobs.put(None)
        with self._starting:
            if self._server is not None:
                self._server.close()
        for thread in threads:
            thread.join()

    def _one_less(self, _: Future[ComparisonOutcome]) -> None:
        with self._lock:
            self._open -= 1

    def _serve(self) -> None:
        """Run one thread: it has a worker of its own, and sends it the requests."""
        worker: Worker | None = None
        try:
            while (first := self._jobs.get()) is not None:
                ahead = min(AT_ONCE - 1, self._jobs.qsize() // self.workers)
                jobs = deque(job for job in (first, *self._taken(ahead)) if job.future.set_running_or_notify_cancel())
                while jobs:
                    try:
                        worker = self._judge(jobs, worker)
                    except Exception as error:  # or this thread would end, and its callers wait for ever
                        worker = None
                        _settle(jobs.popleft(), Status.INFRASTRUCTURE_FAULT, f"the verifier failed: {error!r}")
        finally:
            if worker is not None:
                worker.kill()

    def _judge(self, jobs: deque[_Job], worker: Worker | None) -> Worker | None:
        """Settle jobs in order until they are done or the worker is lost; return the worker if it survives."""
        fresh = False
        try:
            if worker is None or not worker.alive():
                worker, fresh = self._fork(worker), True
        except ChildError as error:
            self._cannot_start(jobs, f"the mathematics worker {error}")
            return None
        for job in jobs:
            worker.send(job.request)
        while jobs:
            job = jobs[0]
            job.begun = job.begun or time.monotonic()
            limit, patience = self._limits(job)
            try:
                reply = json.loads(worker.receive(limit, patience))
                status, reason = Status(reply["status"]), reply["reason"]
            except (ChildError, ValueError, KeyError) as error:
                status, reason = _loss(worker, error, limit)
            lost = status not in (Status.RIGHT, Status.WRONG, Status.UNPARSABLE)
            again = lost and not (status is Status.TIMEOUT or (status is Status.OUT_OF_MEMORY and fresh))
            if again and not job.lost and not self._closed:
                job.lost += 1
            else:
                _settle(jobs.popleft(), status, reason)
            if lost:
                worker.kill()
                return None
            fresh = False
        return worker

    def _limits(self, job: _Job) -> tuple[float, float]:
        """Return the seconds that a comparison may compute now, and the factor of wall time on a busy machine."""
        if job.deadline is None:
            return self.time_limit, PATIENCE
        share = SHARED * (job.deadline - time.monotonic()) * min(1.0, self.workers / max(1, self._open))
        limit = min(self.time_limit, max(SHORTEST, share))
        return limit, min(PATIENCE, max(PATIENCE * SHORTEST, share) / limit)

    def _fork(self, lost: Worker | None) -> Worker:
        """Return a new worker, of a new server if there is none or it fails."""
        if lost is not None:
            lost.kill()
        for attempt in range(2):
            server = None
            try:
                with self._starting:
                    if self._closed:
                        raise ChannelClosedError("was closed")
                    if self._server is None:
                        self._server = ForkServer(self._entry, environment=_ENVIRONMENT, quiet=True)
                    server = self._server
                return server.fork()
            except ChildError:
                if attempt or self._closed:
                    raise
                with self._starting:
                    self._server = None if self._server is server else self._server
        raise AssertionError

    def _cannot_start(self, jobs: deque[_Job], reason: str) -> None:
        """Fail all waiting requests: if each tried again, all of them would be late."""
        jobs.extend(job for job in self._taken(self._jobs.qsize()) if job.future.set_running_or_notify_cancel())
        while jobs:
            _settle(jobs.popleft(), Status.INFRASTRUCTURE_FAULT, reason)

    def _taken(self, count: int) -> Iterable[_Job]:
        for _ in range(count):
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is None:
                self._jobs.put(None)
                return
            yield job


def _settle(job: _Job, status: Status, reason: str) -> None:
    """Report the end of a comparison to the caller."""
    job.future.set_result(ComparisonOutcome(status, reason, time.monotonic() - job.begun if job.begun else 0.0))


def _loss(worker: Worker, error: Exception, limit: float) -> tuple[Status, str]:
    """Return who caused the loss of a worker: the sample or the machine."""
    if isinstance(error, ChildHeldError):
        return Status.INFRASTRUCTURE_FAULT, f"the mathematics worker {error}"
    if isinstance(error, ChildTimeoutError):
        return Status.TIMEOUT, f"comparison stopped after {limit:.3g} s"
    if not isinstance(error, ChannelClosedError):
        return Status.CRASHED, "the worker's answer was not a verdict"
    end = worker.kill()
    if end.code is None or end.code in _FROM_OUTSIDE:
        if end.peak > _HUGE:
            return Status.OUT_OF_MEMORY, f"the system ended the comparison, which had used {end.peak >> 20} MiB"
        return Status.INFRASTRUCTURE_FAULT, f"the mathematics worker was ended from outside ({end.code})"
    how = f"exited with code {end.code}" if end.code >= 0 else f"was ended by {signal.Signals(-end.code).name}"
    return Status.CRASHED, f"the worker {how}"
