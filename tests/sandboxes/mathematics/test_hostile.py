"""Answers made to hang, crash or fool the verifier: each ends at its limit, and the next honest one is right."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gemsmith.sandboxes.mathematics.comparison import at_once
from gemsmith.sandboxes.mathematics.pool import PATIENCE
from gemsmith.sandboxes.mathematics.verifier import MathVerifier
from gemsmith.sandboxes.verdict import Status, Verdict

LIMIT = 0.3
ENDLESS = {
    "power tower": r"\boxed{9^{9^{9^{9}}}}",
    "tower over 16": r"\boxed{16^{16^{16^{16}}}}",
    "factorial": r"\boxed{(10^7)!}",
    "factorial of a factorial": r"\boxed{((9!)!)!}",
    "Mersenne": r"\boxed{2^{2^{40}}-1}",
    "sum of 10^8 terms": r"\boxed{\sum_{k=1}^{100000000} \sin(k)/k}",
    "product of 10^8 terms": r"\boxed{\prod_{k=1}^{100000000} (1+1/k^2)}",
    "huge binomial": r"\boxed{\binom{10^9}{5 \cdot 10^8}}",
    "huge matrix power": r"\boxed{\begin{vmatrix} x & 1 \\ 1 & x \end{vmatrix}^{10^7}}",
    "expanded": r"\boxed{(a+b+c+d+e+f+g+h)^{200}}",
}
LONG = {
    "deep brackets": r"\boxed{" + "(" * 300 + "x" + ")" * 300 + "}",
    "deep brackets under the limit": r"\boxed{" + "(" * 50 + "x" + ")" * 50 + "}",
    "deep fractions": r"\boxed{" + r"\frac{1}{" * 50 + "x" + "}" * 50 + "}",
    "deep sets": r"\boxed{" + r"\{1," * 50 + "x" + r"\}" * 50 + "}",
    "a thousand elements": r"\boxed{\{" + ",".join("x" for _ in range(450)) + r"\}}",
    "a megabyte of sum": r"\boxed{" + "1+" * 500_000 + "1}",
    "a megabyte of digits": r"\boxed{" + "9" * 1_000_000 + "}",
    "a megabyte of boxes": r"\boxed{" * 150_000,
    "a megabyte of closed boxes": r"\boxed{1}" * 110_000,
    "a megabyte of boxes beside each other": r"\boxed{1}, " * 90_000,
    "a megabyte of phrases": "the answer is " * 70_000,
    "a megabyte of answers to": "answer to " * 100_000,
    "an answer to underscores": "answer to " * 5_000 + "_" * 49_000 + " 5",
    "an announced emptiness": "The answer is " + "{" * 2_000 + " " * 90_000 + "5",
    "boxes far apart": r"\boxed{5}" + " " * 90_000 + r"\boxed{6}",
    "a unit without end": r"\boxed{5" + "答えは" * 150 + "total of " * 50 + "}",
    "a megabyte of dollars": "$" * 1_000_000,
    "a megabyte of parentheses": r"\(" * 500_000,
    "a megabyte of hashes": "#" * 1_000_000,
    "a megabyte of spaces": "answer" + " " * 1_000_000,
    "a megabyte of thoughts": "<think>" * 140_000,
    "a megabyte of Bengali": "উত্তর " * 170_000,
}
HOSTILE = ENDLESS | LONG


def endless(index: int) -> str:
    """An answer that takes for ever, another one for each index."""
    return rf"\boxed{{\sum_{{k=1}}^{{{10**8 + index}}} \sin(k)/k}}"


Verify = Callable[[list[str], list[str]], list[Verdict]]


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    with MathVerifier(workers=2, time_limit=LIMIT) as verifier:
        verifier.verify([r"\boxed{x+x}"], ["2x"])
        yield verifier


@pytest.fixture(params=["the main thread", "another thread", "asyncio"])
def verify(request: pytest.FixtureRequest, verifier: MathVerifier) -> Verify:
    """`verify`, called from one place or another."""
    if request.param == "the main thread":
        return verifier.verify
    if request.param == "asyncio":
        return lambda completions, answers: asyncio.run(verifier.verify_async(completions, answers))

    def in_thread(completions: list[str], answers: list[str]) -> list[Verdict]:
        found: list[list[Verdict]] = []
        thread = threading.Thread(target=lambda: found.append(verifier.verify(completions, answers)))
        thread.start()
        thread.join()
        return found[0]

    return in_thread


class Busy:
    """Return how busy the machine is: wall time over the processor time of a process that only computes."""

    def __enter__(self) -> "Busy":
        self._process = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
        self._start = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        used = psutil.Process(self._process.pid).cpu_times()
        self.wall = time.monotonic() - self._start
        self.factor = max(1.0, self.wall / max(0.01, used.user + used.system))
        self._process.kill()
        self._process.wait()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_ends_at_its_limit_and_the_next_honest_one_is_right(verify: Verify, name: str):
    number = time.monotonic_ns()
    with Busy() as busy:
        found = verify([HOSTILE[name]], [r"\sqrt{7}"])[0]
    assert found.status in (Status.TIMEOUT, Status.UNPARSABLE, Status.OUT_OF_MEMORY, Status.WRONG), found.reason
    assert found.score == 0.0
    assert busy.wall <= min(LIMIT * busy.factor, LIMIT * PATIENCE) + 1
    honest = verify([rf"\boxed{{{number}x+\sqrt{{2}}}}"], [rf"\sqrt{{2}}+{number}x"])[0]
    assert honest.status is Status.RIGHT, honest.reason


def test_all_of_them_at_once_harm_no_other(verifier: MathVerifier):
    number = time.monotonic_ns()
    honest = [rf"\boxed{{{number}x+\sqrt{{{index}}}}}" for index, _ in enumerate(HOSTILE)]
    truths = [rf"\sqrt{{{index}}}+{number}x" for index, _ in enumerate(HOSTILE)]
    mixed = [text for pair in zip(HOSTILE.values(), honest, strict=True) for text in pair]
    found = verifier.verify(mixed, [text for truth in truths for text in (r"\sqrt{7}", truth)])
    assert {verdict.score for verdict in found[::2]} == {0.0}
    assert {verdict.status for verdict in found[1::2]} == {Status.RIGHT}


def test_many_callers_at_once_are_each_answered(verifier: MathVerifier):
    number = time.monotonic_ns()

    async def everyone() -> list[list[Verdict]]:
        def caller(index: int) -> tuple[list[str], list[str]]:
            hostile = endless(index) if index % 6 == 0 else "72"
            return [hostile, rf"\boxed{{{number}x+{index}}}"], ["72", f"{index}+{number}x"]

        return await asyncio.gather(
            *(verifier.verify_async(*caller(index)) for index in range(24)),
            *(asyncio.to_thread(verifier.verify, *caller(index)) for index in range(24, 30)),
        )

    for index, (first, second) in enumerate(asyncio.run(everyone())):
        assert first.status is (Status.WRONG if index % 6 == 0 else Status.RIGHT), first.reason
        assert second.status is Status.RIGHT, second.reason


def test_the_event_loop_is_not_blocked(verifier: MathVerifier):
    async def ticking() -> tuple[int, Verdict]:
        task = asyncio.create_task(verifier.verify_async([rf"\boxed{{{time.monotonic_ns()}^{{9^{{9^9}}}}}}"], ["x^2"]))
        ticks = 0
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks, (await task)[0]

    ticks, found = asyncio.run(ticking())
    assert found.status is Status.TIMEOUT
    assert ticks >= 10


def test_a_cancelled_call_drops_what_waits(verifier: MathVerifier):
    async def cancelled() -> None:
        texts = [endless(index) for index in range(200)]
        task = asyncio.create_task(verifier.verify_async(texts, [r"\sqrt{7}"] * len(texts)))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    start = time.monotonic()
    assert verifier.verify([rf"\boxed{{{time.monotonic_ns()}y+y}}"], [r"\sqrt{7}"])[0].status is Status.WRONG
    assert time.monotonic() - start < 200 * LIMIT / 2


def test_hostile_answers_cannot_use_up_a_calls_time():
    """Or a policy that learnt to hang its verifier would end the run."""
    with MathVerifier(workers=2, time_limit=60.0) as verifier:
        verifier.verify([r"\boxed{x+x}"], ["2x"])
        hostile = [endless(index) for index in range(6)]
        found = verifier.verify([*hostile, r"\boxed{x+1}"], [r"\sqrt{7}"] * 6 + ["1+x"], within=12.0)
    assert {verdict.score for verdict in found[:6]} == {0.0}
    assert found[6].status is Status.RIGHT


@pytest.mark.parametrize(
    "text",
    [
        "__import__('pathlib').Path('{owned}').touch()",
        r"\text{{__import__('pathlib').Path('{owned}').touch()}}",
        "x_{{__import__('pathlib').Path('{owned}').touch()}}",
        "f(__import__('pathlib').Path('{owned}').touch())",
        r"\variable{{__import__('pathlib').Path('{owned}').touch()}}",
        r"\operatorname{{eval}}(__import__('pathlib').Path('{owned}').touch())",
        "1e5 if __import__('pathlib').Path('{owned}').touch() else 2",
    ],
)
def test_the_text_of_an_answer_is_never_run(verifier: MathVerifier, tmp_path: Path, text: str):
    owned = tmp_path / "owned"
    program = text.format(owned=owned)
    found = verifier.verify([rf"\boxed{{{program}}}", program], [r"\sqrt{7}", r"\sqrt{7}"])
    assert {verdict.score for verdict in found} == {0.0}
    assert not owned.exists()


def test_nothing_is_left_behind():
    process = psutil.Process()
    fds, children = process.num_fds(), {child.pid for child in process.children(recursive=True)}
    threads = threading.active_count()
    with MathVerifier(workers=2, time_limit=0.25) as verifier:
        texts = [endless(index) if index % 5 == 0 else rf"\boxed{{{index}x+1}}" for index in range(60)]
        verifier.verify(texts, [f"1+{index}x" for index in range(60)])
        assert len({child.pid for child in process.children()} - children) == 1
    deadline = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= threads
    assert {child.pid for child in process.children(recursive=True)} <= children
    del verifier
    gc.collect()
    assert process.num_fds() <= fds


def test_a_verifier_that_is_killed_takes_its_busy_workers_along(tmp_path: Path):
    program = (
        "import threading, time\nfrom gemsmith.sandboxes.mathematics.verifier import MathVerifier\n"
        "verifier = MathVerifier(workers=1)\n"
        r"threading.Thread(target=verifier.verify, args=([r'\boxed{9^{9^{9^9}}}'], [r'\sqrt{7}'])).start()" + "\n"
        "while not (verifier._pool._server): time.sleep(0.01)\nprint(verifier._pool._server.pid, flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    workers = server.children()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs([server, *workers], timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    "truth", ["{" * 1000 + "1" + "}" * 1000, "{" * 5000 + "1" + "}" * 5000, "9" * 4302, "-" * 100_000]
)
def test_a_ground_truth_that_is_too_long_or_too_deep_is_compared_as_text_at_once(truth: str):
    begun = time.monotonic()
    status, reason = at_once("1", truth)
    assert time.monotonic() - begun < 1
    assert status is Status.WRONG and "text" in reason
    assert at_once("7", "7")[0] is Status.RIGHT
