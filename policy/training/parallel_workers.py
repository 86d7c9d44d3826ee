"""Several trainings of one stage in parallel, each in its own worker process, which ends when this process ends.

The worker is a module of the package that trains, which calls `serve`.
"""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Silence, Stage
from gemsmith.contracts.stopping import Stopped, stop_request

LAST_LINES = 8
POLL_SECONDS = 0.5  # interval of looking for a signal
LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Order:
    """An order to a worker process: `what` is the program's input, `folder` receives the result, with the log beside
    it.

    `name`, such as "member 2", names it in messages, and `number` identifies it.
    """

    number: int
    name: str
    stage: Stage
    folder: Path
    what: tuple[Any, ...]


class Teller:
    """A sink that forwards to the parent process; if the parent is gone, the training ends."""

    def __init__(self, messages: Connection) -> None:
        self._messages = messages

    def progress(self, done: int, total: int, unit: str, shown: Mapping[str, float]) -> None:
        """Forward the progress."""
        self._messages.send(("progress", done, dict(shown)))

    def say(self, message: str) -> None:
        """Forward the line."""
        self._messages.send(("say", message))


def serve(messages: Connection, train: Callable[[Order], None]) -> int:
    """Carry out the order on the standard input, and report failures; return the exit code."""
    try:
        order: Order = pickle.load(sys.stdin.buffer)
        order.stage.sink = Teller(messages)
        with stop_request.watched():
            train(order)
    except Stopped as error:
        messages.send(("stopped", str(error)))
    except Exception as error:  # whatever fails here is the parent's to tell
        traceback.print_exc()
        sys.stderr.flush()
        foreseen = isinstance(error, UserError | RunError)
        text = str(error) if foreseen else f"{type(error).__name__}: {error}"
        messages.send(("failed", isinstance(error, UserError), text))
        return 1
    return 0


@dataclass
class _Worker:
    """A running training: its process, its reports, and the file of its output."""

    number: int
    name: str
    process: subprocess.Popen[bytes]
    messages: Connection
    log: Path
    failure: tuple[bool, str] | None = field(default=None)  # whether it is the user's, and what it is
    stopped: str | None = None  # where its training continues
    asked: bool = False  # whether it was asked to stop

    def stop(self) -> None:
        """Ask the process once to save at the end of its step and to end."""
        if not self.asked:
            self.asked = True
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Kill the process and its children, and wait for them; do nothing if it has ended."""
        with suppress(ProcessLookupError, PermissionError):
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.messages.close()


def train_together(
    program: str,
    orders: Sequence[Order],
    parallel: int,
    stage: Stage,
    progress: Callable[[int, Mapping[str, float]], None],
) -> None:
    """Carry out orders, `parallel` at a time; the processes themselves write rows of metrics.jsonl.

    Call `engine.forget_what_runs_again` before, to shorten metrics.jsonl for each of them.

    Args:
        program: module that carries out one order.
        orders: the orders that are not finished.
        parallel: number of orders carried out at once.
        stage: receiver of messages; the orders' own stages reach it through their processes.
        progress: function of the sum of their steps, and metrics of one of them.

    Raises:
        UserError: an order raised a UserError; the others are stopped.
        RunError: an order failed otherwise, or was killed; the others are stopped.
        Stopped: a signal stopped this process; the workers save at the end of their step, if they can within the limit.
    """
    if not orders:
        return
    threads = thread_share(torch.get_num_threads(), parallel)
    each = "one thread" if threads == 1 else f"{threads} threads"
    what = orders[0].name.rpartition(" ")[0]
    stage.say(f"training {min(parallel, len(orders))} {what}s at once, with {each} each")
    waiting = list(orders)
    steps: dict[int, int] = {}
    running: dict[Connection, _Worker] = {}
    stopped: list[str] = []
    try:
        with stop_request.saves_at_step_end():
            while running or (waiting and not stop_request.requested):
                while waiting and len(running) < parallel and not stop_request.requested:
                    worker = _start(program, waiting.pop(0), _environment(os.environ, threads))
                    running[worker.messages] = worker
                if stop_request.requested:
                    for worker in running.values():
                        worker.stop()
                for messages in wait(list(running), timeout=POLL_SECONDS):
                    worker = running[messages]  # type: ignore[index]
                    try:
                        kind, *values = worker.messages.recv()
                    except (EOFError, OSError):
                        del running[worker.messages]
                        if worker.stopped is None:
                            _check(worker)
                        else:
                            worker.end()
                        continue
                    if kind == "progress":
                        steps[worker.number], shown = values
                        progress(sum(steps.values()), shown)
                    elif kind == "say":
                        stage.say(f"{worker.name}: {values[0]}")
                    elif kind == "stopped":
                        worker.stopped = values[0]
                        stopped.append(f"{worker.name} {values[0]}")
                    else:
                        worker.failure = (values[0], values[1])
    finally:
        for worker in running.values():
            worker.end()
    if stop_request.requested:
        raise Stopped(", ".join(stopped))


def thread_share(threads: int, parallel: int) -> int:
    """Return the number of threads of each of several processes, if one process could have `threads`."""
    return max(1, threads // parallel)


def _environment(known: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return the environment of a worker: its number of threads, set before torch is loaded, and no launcher."""
    own = {"OMP_NUM_THREADS": str(threads)}
    return {**{name: value for name, value in known.items() if name not in LAUNCHERS}, **own}


def _start(program: str, order: Order, environment: Mapping[str, str]) -> _Worker:
    """Start the process of an order. The order is its input; its output goes to a file beside the order's folder."""
    log = order.folder.with_name(f"{order.folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    ours, its = Pipe(duplex=False)
    with its, tempfile.TemporaryFile() as told, log.open("ab") as printed:
        pickle.dump(replace(order, stage=replace(order.stage, sink=Silence())), told)
        told.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", program, str(its.fileno()), str(os.getpid())],
            stdin=told,
            stdout=printed,
            stderr=printed,
            env=dict(environment),
            pass_fds=[its.fileno()],
            start_new_session=True,
        )
    return _Worker(order.number, order.name, process, ours, log)


def _check(worker: _Worker) -> None:
    """Check how a process ended.

    Raises:
        UserError: it ended by a UserError.
        RunError: it failed otherwise.
    """
    code = worker.process.wait()
    worker.messages.close()
    if worker.failure is not None:
        users, text = worker.failure
        if users:
            raise UserError(f"{worker.name}: {text}")
        raise RunError(f"{worker.name} failed: {text}\nThe end of {worker.log}:\n{_tail(worker.log)}")
    if code:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        memory = " (is there enough memory? lower `parallel`)" if -code == signal.SIGKILL else ""
        raise RunError(f"{worker.name} {how}{memory}. The end of {worker.log}:\n{_tail(worker.log)}")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-LAST_LINES:]) or "  (nothing)"
