import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxes.math_verifier import MathVerifier, OverdueError
from sandboxes.verdict import Status, Verdict

DATA = Path(__file__).parents[2].parent / "shared" / "data"
LIMIT = 1.0

HOSTILE = {
    "power tower": r"\boxed{9^{9^{9^{9}}}}",
    "tower over 16": r"\boxed{16^{16^{16^{16}}}}",
    "factorial": r"\boxed{(10^7)!}",
    "Mersenne": r"\boxed{2^{2^{40}}-1}",
    "sum of 10^8 terms": r"\boxed{\sum_{k=1}^{100000000} \sin(k)/k}",
    "huge binomial": r"\boxed{\binom{10^9}{5 \cdot 10^8}}",
    "deep brackets": r"\boxed{" + "(" * 300 + "x" + ")" * 300 + "}",
    "deep fractions": r"\boxed{" + r"\frac{1}{" * 50 + "x" + "}" * 50 + "}",
    "a megabyte of sum": r"\boxed{" + "1+" * 500_000 + "1}",
    "a megabyte of boxes": r"\boxed{" * 150_000,
    "a megabyte of phrases": "the answer is " * 70_000,
    "a megabyte of dollars": "$" * 1_000_000,
    "a megabyte of spaces": "answer" + " " * 1_000_000,
}


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    with MathVerifier(workers=2) as verifier:
        yield verifier


def verdict(verifier: MathVerifier, completion: str, answer: str) -> Verdict:
    return verifier.verify([completion], [answer])[0]


def children() -> set[int]:
    """Process ids of this process's children."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid() and fields[0] != "Z":
                found.add(int(folder.name))
    return found


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("72", "72"),
        ("= 72", "She sold 48+24 = 72.\n#### 72"),
        ("She sold 48+24 = 72.\n#### 72", "72"),
        ("The answer is 15 * 8 = 120 pints.", "120"),
        ("The answer is $1,080.", "1080"),
        (r"\boxed{0.5}", r"\frac{1}{2}"),
        (r"\boxed{\dfrac{6}{8}}", "3/4"),
        (r"\boxed{-5}", "-5"),
        (r"\boxed{2x+3}", "3+2x"),
        (r"\boxed{10\sqrt{2}}", r"\sqrt{200}"),
        (r"\boxed{\{1,2\}}", r"\{2, 1\}"),
        (r"\boxed{(3, \frac{\pi}{2})}", r"\left( 3, \frac{\pi}{2} \right)"),
        (r"\boxed{[0,1)}", "[0,1)"),
        (r"\boxed{\text{tuesday}}", "Tuesday"),
        ("The answer is Tuesday.", "Tuesday"),
    ],
)
def test_equal_answers_are_right(verifier: MathVerifier, completion: str, answer: str):
    found = verdict(verifier, completion, answer)
    assert (found.status, found.score) == (Status.RIGHT, 1.0), found.reason


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("5", "-5"),
        ("-5", "5"),
        ("2", "1/2"),
        ("1", "1e3"),
        ("0.3333", "1/3"),
        (r"\boxed{5} or \boxed{6}", "5"),
        ("5, 6", "5"),
        (r"\boxed{x=5 \text{ or } x=6}", "6"),
        (r"\boxed{\pm 5}", "5"),
        (r"\boxed{5t}", "5"),
        ("5", "5t"),
        (r"\boxed{(0,1)}", "[0,1)"),
        ("Wednesday", "Tuesday"),
        ("The answer is 5. (see step 72)", "72"),
    ],
)
def test_other_answers_are_wrong(verifier: MathVerifier, completion: str, answer: str):
    found = verdict(verifier, completion, answer)
    assert (found.status, found.score) == (Status.WRONG, 0.0), found.reason


@pytest.mark.parametrize(
    ("completion", "answer"),
    [("3 + 4", "7"), ("84/2", "42"), (r"\boxed{2^{10}}", "1024"), ("5 6", "11"), ("7 - 0", "7"), ("1/2 + 1/4", "3/4")],
)
def test_repeating_the_question_is_not_an_answer(verifier: MathVerifier, completion: str, answer: str):
    assert verdict(verifier, completion, answer).status is Status.WRONG


@pytest.mark.parametrize("completion", ["", "perhaps 72", "<think>72", r"\boxed{\frac{}}", "The answer is not 72."])
def test_no_answer_is_unparsable(verifier: MathVerifier, completion: str):
    found = verdict(verifier, completion, r"\sqrt{7}")
    assert (found.status, found.score) == (Status.UNPARSABLE, 0.0), found.reason


def test_plain_numbers_need_no_process():
    before = children()
    with MathVerifier() as verifier:
        verifier.verify(["72", "The answer is 3/4.", "no idea"], ["72", "0.75", "5"])
        assert children() == before


def test_closing_ends_every_worker():
    before = children()
    with MathVerifier(workers=2) as verifier:
        verdict(verifier, r"\boxed{x+x}", "2x")
        assert len(children() - before) == 1
    assert children() <= before


def test_hostile_answers_end_at_their_limit_and_harm_no_other_from_the_main_thread_and_from_another():
    with MathVerifier(workers=2, time_limit=LIMIT) as verifier:
        verdict(verifier, r"\boxed{x+x}", "2x")

        def audit(number: int) -> None:
            honest = [rf"\boxed{{{number}x+\sqrt{{{index}}}}}" for index, _ in enumerate(HOSTILE)]
            truths = [rf"\sqrt{{{index}}}+{number}x" for index, _ in enumerate(HOSTILE)]
            found = verifier.verify([*HOSTILE.values(), *honest], [r"\sqrt{7}" for _ in HOSTILE] + truths)
            for name, hostile in zip(HOSTILE, found, strict=False):
                assert hostile.status in (Status.TIMEOUT, Status.UNPARSABLE, Status.OUT_OF_MEMORY, Status.WRONG), name
                assert hostile.seconds < LIMIT + 60, name  # with the start of a fresh worker on a busy machine
            assert {after.status for after in found[len(HOSTILE) :]} == {Status.RIGHT}

        audit(2)
        failures: list[BaseException] = []

        def in_thread() -> None:
            try:
                audit(3)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
        assert not failures


def test_a_comparison_that_never_ends_is_a_timeout_and_its_neighbours_are_judged():
    with MathVerifier(workers=2, time_limit=LIMIT) as verifier:
        found = verifier.verify([r"\boxed{x+x}", HOSTILE["factorial"], r"\boxed{x+x+x}"], ["2x", r"\sqrt{7}", "3x"])
    assert [verdict.status for verdict in found] == [Status.RIGHT, Status.TIMEOUT, Status.RIGHT]
    assert found[1].seconds >= LIMIT


def test_a_call_that_is_late_as_a_whole_names_a_sample():
    with MathVerifier(workers=1, time_limit=60) as verifier, pytest.raises(OverdueError) as caught:
        verifier.verify(["72", HOSTILE["factorial"]], ["72", r"\sqrt{7}"], within=2.0)
    assert (caught.value.index, caught.value.missing) == (1, 1)


def test_a_worker_that_was_killed_from_outside_costs_one_retry():
    before = children()
    with MathVerifier(workers=1) as verifier:
        verdict(verifier, r"\boxed{x+x}", "2x")
        (worker,) = children() - before
        os.kill(worker, 9)
        assert verdict(verifier, r"\boxed{x+x+x}", "3x").status is Status.RIGHT


def test_a_machine_that_cannot_start_workers_is_an_infrastructure_fault(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with MathVerifier(workers=1) as verifier:
        found = verdict(verifier, r"\boxed{x+x}", "2x")
    assert found.status is Status.INFRASTRUCTURE_FAULT
    assert "/nowhere/python" in found.reason


def test_a_verdict_is_remembered_but_a_timeout_is_not():
    with MathVerifier(workers=1, time_limit=LIMIT) as verifier:
        assert verdict(verifier, r"\boxed{x+x}", "2x").seconds > 0
        assert verdict(verifier, r"\boxed{x+x}", "2x").seconds == 0
        for _ in range(2):
            assert verdict(verifier, HOSTILE["factorial"], r"\sqrt{7}").seconds >= LIMIT


def test_a_program_in_any_folder_can_verify_without_a_main_guard(tmp_path: Path):
    """Nothing imports __main__ again: a plain script with work at its top level runs its work once."""
    (tmp_path / "json.py").write_text("raise RuntimeError('a file of the working folder was imported')")
    script = tmp_path / "scripts" / "script.py"
    script.parent.mkdir()
    script.write_text(
        "print('once')\nfrom sandboxes.math_verifier import MathVerifier\n"
        "with MathVerifier() as verifier:\n    print(verifier.verify([r'\\boxed{x+x}'], ['2x'])[0].status)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["once", "right"], done.stderr


@pytest.mark.skipif(not (DATA / "gsm8k").is_dir(), reason="shared/data/gsm8k is not on this machine")
def test_every_gsm8k_solution_is_right_and_no_other_rows_solution_is(verifier: MathVerifier):
    rows = [json.loads(line)["answer"] for line in (DATA / "gsm8k" / "train.jsonl").open()]
    sample = random.Random(0).sample(rows, 600)
    final = [row.rpartition("####")[2].strip() for row in sample]
    assert {verdict.status for verdict in verifier.verify(sample, sample)} == {Status.RIGHT}
    assert {verdict.status for verdict in verifier.verify(final, sample)} == {Status.RIGHT}
    shifted = final[1:] + final[:1]
    differs = [(solution, other) for solution, other, own in zip(sample, shifted, final, strict=True) if own != other]
    found = verifier.verify([solution for solution, _ in differs], [other for _, other in differs])
    assert {verdict.status for verdict in found} == {Status.WRONG}


@pytest.mark.skipif(not (DATA / "math500").is_dir(), reason="shared/data/math500 is not on this machine")
def test_every_math500_solution_is_right(verifier: MathVerifier):
    rows = [json.loads(line) for line in (DATA / "math500" / "test.jsonl").open()]
    found = verifier.verify([row["solution"] for row in rows], [row["answer"] for row in rows])
    assert [row["answer"] for row, verdict in zip(rows, found, strict=True) if verdict.status is not Status.RIGHT] == []
