"""A backend that runs programs on a SandboxFusion service and makes the verdicts here, from what the programs printed.

The service's own sandbox confines the programs. It enforces the limits of time (wall time) and memory that it is sent;
all other limits are its own. This is weaker than a jail on this machine: a program can read the arguments of all
`Calls` at once and can print answers itself. But expected values are never sent, so it still has to compute them.
`Check` needs a channel to the running program and is refused. `Script` is forgeable, as in every backend.
"""

import base64
import binascii
import time
from pathlib import Path

from gemsmith.sandboxes.code import codec
from gemsmith.sandboxes.code.backends.backend import SandboxUnavailableError
from gemsmith.sandboxes.code.backends.fusion import FusionClient, RemoteRun, ServerFaultError
from gemsmith.sandboxes.code.codec import CodecError, encode, matches
from gemsmith.sandboxes.code.evidence import Detail
from gemsmith.sandboxes.code.jobs import Calls, Check, Job, Limits, Script, Stdio
from gemsmith.sandboxes.code.judging import NUMBER, ROOM, SHOWN, JobOutcome, printable, same_output, wrong
from gemsmith.sandboxes.code.sandbox import unrunnable, verdict_of
from gemsmith.sandboxes.verdict import Verdict

LARGEST_ANSWERS = 512 << 10
"""Largest total size, in bytes, of a job's expected values: services truncate the output, SandboxFusion at 1 MiB."""
_CODE = Path(codec.__file__).parent
# Modules that are sent in front of each program. They call its function and print the answers.
_SENT = {"codec": "codec.py", "runner": "jail/runner.py", "printed_calls": "jail/printed_calls.py"}
_HEALTHY = "print(6 * 7)"
_SYNTAX = ("SyntaxError", "IndentationError", "TabError")
# Kinds of the first answer of a program that was not loaded, see jail/printed_calls.py.
_UNLOADED: dict[str, tuple[Detail, str]] = {
    "C": ("compile_error", "does not compile: "),
    "M": ("memory", ""),
    "X": ("fail", "raised "),
}


class HttpSandbox:
    """A sandbox that uses the service at one address. Thread-safe.

    Args:
        url: address of the service, see `FusionClient`.
        grace: seconds that a request may take beyond the program's own limit.
        pause: seconds to wait before a failed request is sent again.

    Raises:
        SandboxUnavailableError: the address cannot be used.
    """

    name = "http"

    def __init__(self, url: str, grace: float = 30.0, pause: float = 1.0) -> None:
        try:
            self._client = FusionClient(url, grace)
        except ValueError as error:
            raise SandboxUnavailableError(str(error)) from None
        self._pause = pause

    def run(self, job: Job) -> Verdict:
        """Judge a job and return the verdict.

        Raises:
            SandboxUnavailableError: the job is a `Check`.
        """
        started = time.monotonic()
        if isinstance(job, Check):
            raise SandboxUnavailableError(
                "the http backend cannot run jobs of kind Check, which call a running program; use a local backend "
                "(bubblewrap, unshare or landlock), or tests of the form `calls` or `stdio`"
            )
        outcome = unrunnable(job, self.name)
        if outcome is None:
            try:
                outcome = self._judge(job)
            except ServerFaultError as fault:
                closed = self._client.closed.is_set()
                outcome = JobOutcome("infra_error", "the sandbox was closed") if closed else self._blame(fault)
        return verdict_of(job, outcome, self.name, time.monotonic() - started)

    def close(self) -> None:
        """End every request. Jobs that are being judged end as infrastructure faults."""
        self._client.close()

    def _judge(self, job: Calls | Stdio | Script) -> JobOutcome:
        try:
            job.source.encode()
        except UnicodeEncodeError as error:
            return JobOutcome("compile_error", f"does not compile: {error}")
        if isinstance(job, Calls):
            return self._calls(job)
        if isinstance(job, Stdio):
            return self._stdio(job)
        outcome = JobOutcome("pass", "exit code 0")
        self._script(f"{job.source}\n\n{job.test}\n", "", job.limits.cpu, job.limits, outcome)
        outcome.cases.append(outcome.detail == "pass")
        return outcome

    def _stdio(self, job: Stdio) -> JobOutcome:
        """Run the program once per case, and compare its output here."""
        total = JobOutcome("pass", f"{len(job.cases)} of {len(job.cases)} cases")
        if not job.cases:
            return JobOutcome("invalid_test", "there are no cases")
        for number, case in enumerate(job.cases):
            try:
                case.stdin.encode()
            except UnicodeEncodeError:
                return JobOutcome("invalid_test", f"case {number + 1}: the input cannot be encoded as UTF-8")
            one = JobOutcome("pass", "")
            run = self._script(job.source, case.stdin, job.limits.case_cpu, job.limits, one)
            if one.detail == "pass" and not same_output(_bytes(run.stdout), case.expected):
                one.detail, one.reason = "fail", "the output differs from the expected one"
            total.cases.append(one.detail == "pass")
            total.exit = one.exit
            total.stdout, total.stderr = (total.stdout + one.stdout)[:SHOWN], (total.stderr + one.stderr)[:SHOWN]
            if one.detail != "pass" and total.detail == "pass":
                total.detail, total.reason = one.detail, f"case {number + 1} of {len(job.cases)}: {one.reason}"
            # Each further case would end the same way, and may take as long.
            if one.detail in ("timeout", "compile_error", "output_limit"):
                break
        return total

    def _script(self, program: str, stdin: str, cpu: float, limits: Limits, outcome: JobOutcome) -> RemoteRun:
        """Run a program from beginning to end, return the run, and record in `outcome` how it ended."""
        # The service reports only an exit code and the output, so an error while the program was compiled and a lack of
        # memory are recognised by the last line of standard error. A traceback means that the program itself ran.
        run = self._run(program, stdin, limits.wall_factor * cpu + 1.0, limits, 0)
        _see(run, limits, outcome)
        last = run.stderr.rstrip().rpartition("\n")[2]
        if outcome.detail == "fail" and last.startswith("MemoryError"):
            outcome.detail, outcome.reason = "memory", "not enough memory"
        elif outcome.detail == "fail" and last.startswith(_SYNTAX) and not run.stderr.lstrip().startswith("Traceback"):
            outcome.detail, outcome.reason = "compile_error", "does not compile: " + printable(_bytes(last))
        return run

    def _calls(self, job: Calls) -> JobOutcome:
        """Run a script that calls the function once per case and prints the values, and compare them here."""
        outcome = JobOutcome("pass", f"{len(job.cases)} of {len(job.cases)} cases")
        try:
            wanted = sum(len(encode(case.expected, canonical=True)) for case in job.cases)
            program = _calling(job)
        except CodecError as error:
            return JobOutcome("invalid_test", f"a case is not plain data: {error}")
        if not job.cases or wanted > LARGEST_ANSWERS:
            reason = (
                "there are no cases"
                if not job.cases
                else f"the expected values have {wanted} bytes, the http backend allows at most {LARGEST_ANSWERS}"
            )
            return JobOutcome("invalid_test", reason)
        # All cases share one run, so its wall time is the sum of theirs. A wrong answer may be longer than the right
        # one, so there is room for four times the expected bytes and ROOM more per case; base64 and JSON need the rest.
        limits, count = job.limits, len(job.cases)
        seconds = min(limits.wall, limits.wall_factor * limits.case_cpu * count + 1.0)
        run = self._run(program, "", seconds, limits, 2 * (count * (ROOM + 64) + 4 * wanted))
        _see(run, limits, outcome)
        failure = _compare(job, run.stdout, outcome.cases)
        if outcome.detail in ("pass", "fail") and failure is not None:
            outcome.detail, outcome.reason = failure
        return outcome

    def _run(self, program: str, stdin: str, seconds: float, limits: Limits, answers: int) -> RemoteRun:
        """Send one request; if the service was at fault, wait and send it once more."""
        # Room for two streams of output, each character of which JSON may write in six ("\u0000").
        largest = 12 * limits.output + answers + (64 << 10)
        try:
            return self._client.run(program, stdin, seconds=seconds, memory=limits.memory, largest_reply=largest)
        except ServerFaultError:
            if self._client.closed.wait(self._pause):
                raise
        return self._client.run(program, stdin, seconds=seconds, memory=limits.memory, largest_reply=largest)

    def _blame(self, fault: ServerFaultError) -> JobOutcome:
        """Return the outcome of a program that twice had no result.

        It is a crash if the service still runs another program, and an infrastructure fault otherwise. If every fault
        were an infrastructure fault, a program could avoid its verdict by causing one.
        """
        # A request that was never accepted cannot have run the program.
        if fault.reached:
            try:
                run = self._client.run(_HEALTHY, "", seconds=2.0, memory=256 << 20, largest_reply=64 << 10)
            except ServerFaultError:
                return JobOutcome("infra_error", str(fault))
            if run.code == 0 and run.stdout.strip() == "42":
                return JobOutcome("crash", f"twice without a result, while the service ran another program: {fault}")
        return JobOutcome("infra_error", str(fault))


def _see(run: RemoteRun, limits: Limits, outcome: JobOutcome) -> None:
    """Record how a program ended in `outcome`."""
    outcome.stdout, outcome.stderr = _bytes(run.stdout)[:SHOWN], _bytes(run.stderr)[:SHOWN]
    outcome.exit = "" if run.code is None else str(run.code)
    if run.timed_out:
        outcome.detail, outcome.reason = "timeout", "stopped at its time limit"
    elif max(len(_bytes(run.stdout)), len(_bytes(run.stderr))) > limits.output:
        outcome.detail, outcome.reason = "output_limit", f"more than {limits.output} bytes of output"
    # A shell reports a signal as 128 plus its number; there are 64 signals.
    elif run.code and (run.code < 0 or 128 < run.code <= 192):
        outcome.detail, outcome.reason = "crash", f"ended with code {run.code}"
    elif run.code:
        outcome.detail, outcome.reason = "fail", f"exit code {run.code}"


def _calling(job: Calls) -> str:
    """Return a script that calls the function once per case and prints the values; it contains no expected value."""
    # The script carries the source of the modules in `_SENT`, as the service does not have them.
    calls = [encode((list(case.arguments), dict(case.keywords))) for case in job.cases]
    parts = {name: (_CODE / path).read_text() for name, path in _SENT.items()}
    return (
        "import sys, types\n"
        f"for name, text in {parts!r}.items():\n"
        "    module = sys.modules[name] = types.ModuleType(name)\n"
        "    module.__file__ = name\n"
        "    exec(compile(text, name, 'exec', dont_inherit=True), module.__dict__)\n"
        f"module.main({job.source.encode()!r}, {job.function!r}, {calls!r})\n"
    )


def _answer(line: str) -> tuple[str, bytes] | None:
    """Return the kind and the body of a printed answer; None if the line does not have that form."""
    kind, _, body = line.partition(" ")
    if kind not in ("R", "V", "X", "U", "M", "C"):
        return None
    try:
        return kind, base64.b64decode(body, validate=True)
    except (ValueError, binascii.Error):
        return None


def _compare(job: Calls, stdout: str, cases: list[bool]) -> tuple[Detail, str] | None:
    """Compare the printed answers with the cases, append to `cases` which are right, and return the first failure."""
    failure: tuple[Detail, str] | None = None
    count = len(job.cases)
    # The part after the last line break is empty, or a line that the service cut off. The first line reports whether
    # the program was loaded; after it comes one line per call, in order, each with the number of its call.
    answers = [_answer(line) for line in stdout.split("\n")[:-1]]
    if answers and answers[0] is not None and answers[0][0] in _UNLOADED:
        detail, start = _UNLOADED[answers[0][0]]
        return detail, start + printable(answers[0][1])
    for number, answer in enumerate(answers[1:]):
        if answer is None or number >= count or answer[1][:4] != NUMBER.pack(number):
            return "protocol", f"answer {number + 1} does not belong to a case, or has a wrong form"
        case, (kind, body) = job.cases[number], answer
        cases.append(kind == "V" and matches(case.expected, body[4:], case.tolerance))
        if not cases[-1] and failure is None:
            reason = f"case {number + 1} of {count}: " + wrong(kind.encode(), body[4:])
            failure = ("memory" if kind == "M" else "fail"), reason
    if len(cases) < count and failure is None:
        failure = "fail", f"the program ended before its answer to case {len(cases) + 1} of {count}"
    return failure


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
