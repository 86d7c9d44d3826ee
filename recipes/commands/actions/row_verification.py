"""Grade a file of completions without a recipe: `gemsmith verify math` and `verify code`. Imports no torch."""

import json
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.curation.sources.json_lines import json_lines
from gemsmith.sandboxes.code.jobs import Limits, Script
from gemsmith.sandboxes.code.records import RecordError, read_record
from gemsmith.sandboxes.code.verifier import CodeVerifier
from gemsmith.sandboxes.mathematics.verifier import MathVerifier
from gemsmith.sandboxes.verdict import Status, Verdict

MAX_WAITING_ROWS = 512
"""Rows that may wait for one that takes long, before no more are read."""
PROGRESS_SECONDS = 5.0

Judge = Callable[[], Verdict]


def verify_math(file: Path, out: Path | None, workers: int | None) -> None:
    """Grade rows with `completion` and `answer`; see `grade`."""
    with MathVerifier(workers=workers) as verifier:

        def judge(row: Mapping[str, Any]) -> Judge:
            completion, answer = _text(row, "completion"), row.get("answer")
            if isinstance(answer, bool) or not isinstance(answer, str | int | float) or answer == "":
                raise RecordError(f"`answer` must be the true answer, as text or a number, found {_shown(answer)}")
            return lambda: verifier.verify([completion], [str(answer)])[0]

        grade(file, out, judge, 2 * verifier.workers)


def verify_code(
    file: Path,
    out: Path | None,
    workers: int | None,
    *,
    backend: str = "auto",
    url: str | None = None,
    cpu: float = 10.0,
    memory: int = 512,
    allow_forgeable: bool = False,
) -> None:
    """Grade rows with `completion` and fields of HumanEval, MBPP or APPS, or `tests` in the plain form; see `grade`.

    Args:
        file: of JSON lines; "-" is standard input.
        out: where the verdicts go.
        workers: programs judged at once; None: one a core.
        backend: of the sandbox.
        url: of a remote backend.
        cpu: seconds of processor time of one program.
        memory: MiB of one program.
        allow_forgeable: also grade by tests whose verdict a program can forge.
    """
    limits = Limits(cpu=cpu, case_cpu=cpu, memory=memory << 20)
    try:
        opened = CodeVerifier(backend, workers, limits, url)
    except ValueError as error:
        raise UserError(f"--backend {backend}: {error}.") from error
    with opened as verifier:

        def judge(row: Mapping[str, Any]) -> Judge:
            completion = _text(row, "completion")
            problem = read_record({name: value for name, value in row.items() if name != "completion"})
            if isinstance(problem.tests, Script) and not allow_forgeable:
                raise RecordError("its tests are a `script`, whose verdict a program can forge; see --allow-forgeable")
            return lambda: verifier.verify([completion], [problem])[0]

        grade(file, out, judge, verifier.workers)


def grade(file: Path, out: Path | None, judge: Callable[[Mapping[str, Any]], Judge], threads: int) -> None:
    """Write one JSON line for each row, in order, as soon as it is there; progress and a summary go to standard error.

    Args:
        file: of JSON lines; "-" is standard input.
        out: where the verdicts go; None: standard output.
        judge: what to do for a row; raises RecordError where the row is not as it should be.
        threads: rows judged at once.

    Raises:
        UserError: a row is not as it should be, named by its line; the verdicts of all rows before it are written.
        RunError: the machine failed on some rows; all rows are written, those with `score` null.
    """
    tally = _Tally()
    with ExitStack() as stack:
        source = stack.enter_context(_opened(file))
        target = stack.enter_context(_target(out, file))
        pool = ThreadPoolExecutor(threads)
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        waiting: queue.Queue[Future[Verdict] | BaseException | None] = queue.Queue(MAX_WAITING_ROWS)

        def read() -> None:
            """Rows wait for their turn behind those before them, and so does what is wrong with one."""
            try:
                for row in json_lines(source, str(file)):
                    try:
                        work = judge(row.columns)
                    except RecordError as error:
                        raise UserError(f"{row.where}: {error}.") from error
                    waiting.put(pool.submit(work))
                waiting.put(None)
            except BaseException as error:  # it belongs to the thread that waits
                waiting.put(error)

        threading.Thread(target=read, name="reader", daemon=True).start()
        while (next_one := waiting.get()) is not None:
            if isinstance(next_one, BaseException):
                tally.end()
                raise next_one
            verdict = next_one.result()
            target.write(json.dumps(_line(verdict)) + "\n")
            target.flush()
            tally.count(verdict)
        tally.end()
    if faults := tally.statuses[Status.INFRASTRUCTURE_FAULT]:
        raise RunError(
            f"{faults} of {tally.rows} rows could not be verified, tried twice each ({tally.fault}); "
            "their score is null"
        )


class _Tally:
    """Counts verdicts, and prints how many there are every few seconds."""

    def __init__(self) -> None:
        self.statuses: Counter[Status] = Counter()
        self.fault = ""
        self._begun = self._reported = time.monotonic()

    @property
    def rows(self) -> int:
        """How many verdicts there were."""
        return self.statuses.total()

    def count(self, verdict: Verdict) -> None:
        """One more."""
        self.statuses[verdict.status] += 1
        if verdict.status is Status.INFRASTRUCTURE_FAULT:
            self.fault = verdict.reason
        if time.monotonic() - self._reported >= PROGRESS_SECONDS:
            self._reported = time.monotonic()
            print(f"{self.rows} rows, {self.rows / (self._reported - self._begun):.0f}/s", file=sys.stderr)

    def end(self) -> None:
        """The summary."""
        counts = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in self.statuses.most_common())
        seconds = time.monotonic() - self._begun
        print(f"{self.rows} rows in {seconds:.1f} s: {counts or 'nothing to verify'}", file=sys.stderr)


def _line(verdict: Verdict) -> dict[str, Any]:
    faulty = verdict.status is Status.INFRASTRUCTURE_FAULT
    line: dict[str, Any] = {
        "score": None if faulty else verdict.score,
        "status": verdict.status,
        "seconds": round(verdict.seconds, 6),
        "reason": verdict.reason,
        "answer": verdict.answer,
    }
    if verdict.evidence is not None:
        line |= {"detail": verdict.evidence.detail, "cases": list(verdict.evidence.cases)}
        line |= {"forgeable": True} if verdict.evidence.forgeable else {}
    return line


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    if not file.is_file():
        raise UserError(f"{file}: found {'a folder' if file.is_dir() else 'no such file'}, expected JSON lines")
    try:
        stream = file.open("rb")
    except OSError as error:
        raise UserError(f"{file}: the file cannot be read: {error.strerror}") from error
    with stream:
        yield stream


@contextmanager
def _target(out: Path | None, file: Path) -> Iterator[IO[str]]:
    if out is None:
        yield sys.stdout
        return
    if out.exists() and file.exists() and out.samefile(file):
        raise UserError(f"--out {out}: found the file that is to be verified, expected another one")
    try:
        stream = out.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out}: the file cannot be written: {error.strerror}") from error
    with stream:
        yield stream


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise RecordError(f"`{name}` must be text, found {_shown(value)}; it has the fields {', '.join(row) or 'none'}")
    return value


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:40]
