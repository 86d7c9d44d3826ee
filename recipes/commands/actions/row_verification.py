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
"""Rows that are read ahead while a slow row is judged; verdicts are written in order, so later rows wait."""
PROGRESS_SECONDS = 5.0

Judge = Callable[[], Verdict]


def verify_math(file: Path, out: Path | None, workers: int | None) -> None:
    """Grade rows with `completion` and `answer`; `grade` describes the output and the errors."""
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
    """Grade rows with `completion` and fields of HumanEval, MBPP or APPS, or `tests` in gemsmith's own form.

    `grade` describes the output and the errors.

    Args:
        file: JSON Lines file; "-" is standard input.
        out: file for the verdicts; None is standard output.
        workers: programs judged in parallel; None means one per core.
        backend: name of the sandbox backend.
        url: address of the server, for the backend "http".
        cpu: CPU seconds per program.
        memory: address space per program, in MiB.
        allow_forgeable: also grade `script` tests, whose verdict a program can forge.
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
                raise RecordError(
                    "found `script` tests, whose verdict a program can forge; use another form, or --allow-forgeable"
                )
            return lambda: verifier.verify([completion], [problem])[0]

        grade(file, out, judge, verifier.workers)


def grade(file: Path, out: Path | None, judge: Callable[[Mapping[str, Any]], Judge], threads: int) -> None:
    """Write one JSON line per row, in order and as early as possible; progress and a summary go to standard error.

    Args:
        file: JSON Lines file; "-" is standard input.
        out: file for the verdicts; None is standard output.
        judge: returns the function that computes a row's verdict; raises RecordError if the row is invalid.
        threads: rows judged in parallel.

    Raises:
        UserError: a row is invalid; the message gives its line. The verdicts of all rows before it are written.
        RunError: the machine failed on some rows. All rows are written; the failed ones have `score` null.
    """
    tally = _Tally()
    with ExitStack() as stack:
        source = stack.enter_context(_opened(file))
        target = stack.enter_context(_target(out, file))
        pool = ThreadPoolExecutor(threads)
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        waiting: queue.Queue[Future[Verdict] | BaseException | None] = queue.Queue(MAX_WAITING_ROWS)

        def read() -> None:
            """Queue each row's verdict in order; an error is queued too, so that all rows before it are written."""
            try:
                for row in json_lines(source, str(file)):
                    try:
                        work = judge(row.columns)
                    except RecordError as error:
                        raise UserError(f"{row.where}: {error}.") from error
                    waiting.put(pool.submit(work))
                waiting.put(None)
            except BaseException as error:  # the main thread raises it
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
            f"{faults} of {tally.rows} rows could not be verified after two attempts ({tally.fault}); "
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
        """Return the number of verdicts so far."""
        return self.statuses.total()

    def count(self, verdict: Verdict) -> None:
        """Add a verdict, and print the progress if the last line is older than `PROGRESS_SECONDS`."""
        self.statuses[verdict.status] += 1
        if verdict.status is Status.INFRASTRUCTURE_FAULT:
            self.fault = verdict.reason
        if time.monotonic() - self._reported >= PROGRESS_SECONDS:
            self._reported = time.monotonic()
            print(f"{self.rows} rows, {self.rows / (self._reported - self._begun):.0f}/s", file=sys.stderr)

    def end(self) -> None:
        """Print the summary."""
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
        raise UserError(f"{file}: found {'a folder' if file.is_dir() else 'no such file'}, expected a JSON Lines file")
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
        raise UserError(f"--out {out}: is the input file; name another file")
    try:
        stream = out.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out}: the file cannot be written: {error.strerror}") from error
    with stream:
        yield stream


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        has = ", ".join(row) or "none"
        raise RecordError(f"`{name}` must be text, found {_shown(value)}; the row has the fields {has}")
    return value


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:40]
