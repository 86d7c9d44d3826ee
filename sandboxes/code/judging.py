"""Judging of jobs: requests to the program, and comparison of its answers."""

import struct
import time
from dataclasses import dataclass, field, replace

from gemsmith.sandboxes.code.backends.jail import Jail, JobEnd
from gemsmith.sandboxes.code.codec import CodecError, encode, matches
from gemsmith.sandboxes.code.evidence import Detail
from gemsmith.sandboxes.code.job_session import Trial, TrialEnd, Why
from gemsmith.sandboxes.code.jobs import Calls, Check, Limits, Script, Stdio

NUMBER = struct.Struct(">I")
PATIENCE = 0.05  # seconds in which a program that has answered everything ends by itself
ROOM = 64 << 10
LONGEST_ANSWER = 4 << 20
SHOWN = 64 << 10
OUT_OF_MEMORY = "71"  # exit code of a job that had not enough memory to say so, see jail/zygote.py


@dataclass
class JobOutcome:
    """Outcome of a job; see `Evidence`."""

    detail: Detail
    reason: str
    cases: list[bool] = field(default_factory=list)
    cpu: float = 0.0
    max_rss: int = 0
    exit: str = ""
    stdout: bytes = b""
    stderr: bytes = b""

    def saw(self, trial: Trial, end: JobEnd) -> None:
        """Record the end of a program."""
        self.cpu += end.cpu
        self.max_rss = max(self.max_rss, end.max_rss)
        self.exit = end.exit
        self.stdout = (self.stdout + bytes(trial.stdout[:SHOWN]))[:SHOWN]
        self.stderr = (self.stderr + bytes(trial.stderr[:SHOWN]))[:SHOWN]


def printable(text: bytes) -> str:
    """Return a program's text in a form that is safe for a terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:1200].decode("utf-8", "replace")[:300])


def judge_calls(job: Calls, jail: Jail) -> JobOutcome:
    """Call the function once per case, and compare the values here."""
    outcome = JobOutcome("fail", "")
    trial = Trial(jail, job.limits, b"F")
    try:
        trial.send((b"S", job.source.encode("utf-8", "surrogatepass")), *_calls(job), (b"Q", b""))
        for number, case in enumerate(job.cases):
            largest = ROOM + 4 * len(encode(case.expected, canonical=True))
            kind, body = trial.receive(4 + largest, job.limits.case_cpu)
            _must_be_loaded(kind, body)
            if len(body) < 4 or NUMBER.unpack_from(body)[0] != number:
                raise TrialEnd(Why.PROTOCOL, "an answer to another question")
            right = kind == b"V" and matches(case.expected, body[4:], case.tolerance)
            outcome.cases.append(right)
            if not right and not outcome.reason:
                outcome.reason = f"case {number + 1} of {len(job.cases)}: " + wrong(kind, body[4:])
                outcome.detail = "memory" if kind == b"M" else "fail"
        if all(outcome.cases) and outcome.cases:
            outcome.detail, outcome.reason = ("pass", f"{len(job.cases)} of {len(job.cases)} cases")
        elif not outcome.cases:
            outcome.detail, outcome.reason = "invalid_test", "there are no cases"
        _finish(trial, outcome)
    except TrialEnd as failure:
        _fail(trial, outcome, failure)
    except CodecError as error:
        outcome.detail, outcome.reason = ("invalid_test", f"a case is not plain data: {error}")
        _finish(trial, outcome)
    except BaseException:
        trial.close()
        raise
    return outcome


def _calls(job: Calls) -> list[tuple[bytes, bytes]]:
    """Yield the frames of all calls; none contains an expected value."""
    return [
        (b"A", NUMBER.pack(number) + encode((job.function, list(case.arguments), dict(case.keywords))))
        for number, case in enumerate(job.cases)
    ]


def judge_stdio(job: Stdio, jail: Jail) -> JobOutcome:
    """Run the program once per case, and compare its output here."""
    outcome = JobOutcome("pass", f"{len(job.cases)} of {len(job.cases)} cases")
    if not job.cases:
        return JobOutcome("invalid_test", "there are no cases")
    deadline = time.monotonic() + job.limits.wall
    for number, case in enumerate(job.cases):
        limits = replace(job.limits, cpu=min(job.limits.case_cpu, max(0.01, job.limits.cpu - outcome.cpu)))
        wall = min(limits.wall, deadline - time.monotonic())
        one = _run_script(job.source, case.stdin.encode(), limits, jail, outcome, wall)
        if one.detail == "pass" and not same_output(one.stdout, case.expected):
            one = JobOutcome("fail", "another output than expected")
        outcome.cases.append(one.detail == "pass")
        if one.detail != "pass" and outcome.detail == "pass":
            outcome.detail, outcome.reason = (one.detail, f"case {number + 1} of {len(job.cases)}: {one.reason}")
        if one.detail in ("timeout", "compile_error", "output_limit"):
            break
    return outcome


def judge_script(job: Script, jail: Jail) -> JobOutcome:
    """Run program and test as one; the exit code is the verdict, and the program can forge it."""
    outcome = JobOutcome("pass", "exit code 0")
    one = _run_script(f"{job.source}\n\n{job.test}\n", b"", job.limits, jail, outcome)
    outcome.detail, outcome.cases = one.detail, [one.detail == "pass"]
    outcome.reason = one.reason if one.reason else outcome.reason
    return outcome


def judge_check(job: Check, jail: Jail, judge_jail: Jail) -> JobOutcome:
    """Run the test in the judge's jail and the program in another, and relay calls between them."""
    outcome = JobOutcome("fail", "")
    trial = Trial(jail, job.limits, b"F")
    try:
        trial.send((b"S", job.source.encode("utf-8", "surrogatepass")))
        judge = Trial(judge_jail, job.limits, b"J")
    except BaseException:
        trial.close()
        raise
    try:
        _carry(job, trial, judge, outcome)
        judge.finish(0.0)
        trial.send((b"Q", b""))
        _finish(trial, outcome)
    except TrialEnd as failure:
        judge.finish(0.0)
        _fail(trial, outcome, failure)
    except BaseException:
        trial.close()
        judge.close()
        raise
    return outcome


def _carry(job: Check, trial: Trial, judge: Trial, outcome: JobOutcome) -> None:
    """Relay calls from the judge to the program and answers back, until the judge has decided."""
    judge.send((b"S", encode((job.test, list(job.names)))))
    calls = 0
    while True:
        try:
            kind, body = judge.receive(LONGEST_ANSWER, float("inf"))
        except TrialEnd as failure:
            outcome.cases.append(False)
            outcome.detail = "timeout" if failure.why is Why.TIMEOUT else "fail"
            outcome.reason = f"the test {failure}"
            return
        if kind == b"P":
            calls += 1
            trial.send((b"P", body))
            answer, reply = trial.receive(LONGEST_ANSWER, job.limits.case_cpu)
            _must_be_loaded(answer, reply)
            trial.locate()
            if reply[:4] != body[:4] or answer not in (b"V", b"X", b"U", b"M"):
                raise TrialEnd(Why.PROTOCOL, "an answer to another question")
            if answer == b"M":
                outcome.detail = "memory"
            judge.send((answer, reply))
            continue
        if kind == b"G":
            raise TrialEnd(Why.PROTOCOL, "sent an invalid reply: " + printable(body))
        if kind == b"E" and calls:
            outcome.detail, outcome.reason = ("pass", f"the test passed, with {calls} calls")
        elif kind == b"E":
            outcome.detail, outcome.reason = ("invalid_test", "the test never calls the program")
        else:
            outcome.reason = "the test failed: " + printable(body)
        outcome.cases.append(outcome.detail == "pass")
        return


def _must_be_loaded(kind: bytes, body: bytes) -> None:
    """Raise if the program reports that it could not be loaded."""
    if kind in (b"C", b"L", b"O"):
        raise _Unloaded(kind, body)


class _Unloaded(TrialEnd):
    """The program was not loaded; it reports why."""

    def __init__(self, kind: bytes, body: bytes) -> None:
        super().__init__(Why.ENDED, "the program was not loaded")
        details: dict[bytes, tuple[Detail, str]] = {
            b"C": ("compile_error", "does not compile: "),
            b"L": ("fail", "raised "),
            b"O": ("memory", ""),
        }
        self.detail, start = details[kind]
        self.reason = start + printable(body)


def _run_script(
    source: str, stdin: bytes, limits: Limits, jail: Jail, total: JobOutcome, wall: float | None = None
) -> JobOutcome:
    """Run a program once from beginning to end; add its usage to the total."""
    trial = Trial(jail, limits, b"S", stdin, wall)
    one = JobOutcome("pass", "")
    try:
        trial.send((b"S", source.encode("utf-8", "surrogatepass")))
        end = trial.finish(float("inf"))
    except BaseException:
        trial.close()
        raise
    total.saw(trial, end)
    one.stdout = bytes(trial.stdout)
    kind, body = trial.last_frame()
    if trial.failure is not None and trial.failure.why is Why.OUTPUT:
        one.detail, one.reason = "output_limit", str(trial.failure)
    elif kind == b"C":
        one.detail, one.reason = "compile_error", "does not compile: " + printable(body)
    elif kind == b"O":
        one.detail, one.reason = "memory", printable(body)
    elif end.why in ("C", "W"):
        one.detail, one.reason = "timeout", trial.late(end)
    elif end.exit.isdigit():
        if end.exit == OUT_OF_MEMORY:
            one.detail, one.reason = "memory", "not enough memory"
        elif end.exit != "0":
            one.detail, one.reason = "fail", f"exit code {end.exit}"
    elif end.exit == "SIGKILL" and end.cpu >= limits.cpu:
        one.detail, one.reason = "timeout", trial.late(end)
    else:
        one.detail, one.reason = "crash", f"ended by {end.exit}"
    return one


def _finish(trial: Trial, outcome: JobOutcome) -> None:
    """End the program, whose outcome is settled."""
    outcome.saw(trial, trial.finish(PATIENCE if outcome.cases else 0.0))


def _fail(trial: Trial, outcome: JobOutcome, failure: TrialEnd) -> None:
    """End a program that failed, and record the failure."""
    end = trial.finish(PATIENCE if failure.why is Why.ENDED else 0.0)  # how it ended by itself counts
    outcome.saw(trial, end)
    if failure.why is Why.ENDED and trial.failure is not None and trial.failure.why is Why.OUTPUT:
        failure = trial.failure
    if isinstance(failure, _Unloaded):
        outcome.detail, outcome.reason = failure.detail, failure.reason
    elif failure.why is not Why.ENDED:
        outcome.detail, outcome.reason = failure.why.value, str(failure)  # type: ignore[assignment]
    elif end.why in ("C", "W"):
        outcome.detail, outcome.reason = "timeout", trial.late(end)
    elif end.exit == OUT_OF_MEMORY:
        outcome.detail, outcome.reason = "memory", "not enough memory"
    elif end.exit.isdigit() or (end.why, end.exit) == ("K", "SIGKILL"):
        outcome.detail, outcome.reason = ("fail", f"the program ended, or closed its channel (exit code {end.exit})")
    else:
        outcome.detail, outcome.reason = "crash", f"the program was ended by {end.exit}"


def wrong(kind: bytes, body: bytes) -> str:
    """Describe how an answer differs from the expected one."""
    if kind == b"V":
        return "another value than expected"
    if kind == b"X":
        return "raised " + printable(body)
    if kind == b"U":
        return "the value is not plain data: " + printable(body)
    return printable(body)


def same_output(printed: bytes, expected: str) -> bool:
    """Return True if two outputs are equal line by line, except spaces at line ends and empty lines at the end."""
    wanted = expected.encode("utf-8", "surrogatepass")
    return _lines(printed) == _lines(wanted)


def _lines(output: bytes) -> list[bytes]:
    return [line.rstrip() for line in output.rstrip().split(b"\n")]
