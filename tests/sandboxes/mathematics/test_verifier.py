import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemsmith.sandboxes.mathematics.verifier import MathVerifier
from gemsmith.sandboxes.verdict import OverdueError, Status, Verdict

LIMIT = 1.0

ENDLESS = r"\boxed{\sum_{k=1}^{100000000} \sin(k)/k}"


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


def test_a_comparison_that_never_ends_is_a_timeout_and_its_neighbours_are_judged():
    with MathVerifier(workers=2, time_limit=LIMIT) as verifier:
        found = verifier.verify([r"\boxed{x+x}", ENDLESS, r"\boxed{x+x+x}"], ["2x", r"\sqrt{7}", "3x"])
    assert [verdict.status for verdict in found] == [Status.RIGHT, Status.TIMEOUT, Status.RIGHT]
    assert found[1].seconds >= LIMIT


def test_a_call_that_is_late_as_a_whole_names_a_sample():
    endless = [rf"\boxed{{\sum_{{k=1}}^{{{10**8 + number}}} \sin(k)/k}}" for number in range(40)]
    with MathVerifier(workers=1, time_limit=60) as verifier, pytest.raises(OverdueError) as caught:
        verifier.verify(["72", *endless], ["72"] + [r"\sqrt{7}"] * 40, within=2.0)
    assert 1 <= caught.value.index <= 40
    assert caught.value.missing >= 20


def test_a_completion_that_was_cut_off_has_not_answered(verifier: MathVerifier):
    completions = ["The answer is 72.", r"\boxed{72} is the", "72"]
    found = verifier.verify(completions, ["72"] * 3, finished=[True, False, False])
    assert [verdict.status for verdict in found] == [Status.RIGHT, Status.UNPARSABLE, Status.UNPARSABLE]
    assert found[1].reason == "cut off before its end"
    with pytest.raises(ValueError):
        verifier.verify(completions, ["72"] * 3, finished=[True])


def test_the_answer_of_async_code_is_the_same(verifier: MathVerifier):
    completions = ["72", r"\boxed{x+x}", "no idea", r"\boxed{x+y}"]
    truths = ["72", "2x", "5", "2x"]
    found = asyncio.run(verifier.verify_async(completions, truths, finished=[True] * 4))
    assert [verdict.status for verdict in found] == [Status.RIGHT, Status.RIGHT, Status.UNPARSABLE, Status.WRONG]
    endless = [rf"\boxed{{\sum_{{k=1}}^{{{10**8 + number}}} \sin(k)/k}}" for number in range(40)]
    with pytest.raises(OverdueError):
        asyncio.run(verifier.verify_async(endless, [r"\sqrt{7}"] * 40, within=1.0))


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
            assert verdict(verifier, ENDLESS, r"\sqrt{7}").seconds >= LIMIT


def test_a_program_in_any_folder_can_verify_without_a_main_guard(tmp_path: Path):
    """Nothing imports __main__ again: a plain script with work at its top level runs its work once."""
    (tmp_path / "json.py").write_text("raise RuntimeError('a file of the working folder was imported')")
    script = tmp_path / "scripts" / "script.py"
    script.parent.mkdir()
    script.write_text(
        "print('once')\nfrom gemsmith.sandboxes.mathematics.verifier import MathVerifier\n"
        "with MathVerifier() as verifier:\n    print(verifier.verify([r'\\boxed{x+x}'], ['2x'])[0].status)\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["once", "right"], done.stderr
