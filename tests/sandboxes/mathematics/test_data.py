"""Gold answers of real data: each is right however it is written, and none is with a digit changed."""

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gemsmith.sandboxes.mathematics.verifier import MathVerifier
from gemsmith.sandboxes.verdict import Status

DATA = Path(__file__).parents[3].parent / "shared" / "data"
LANGUAGES = {
    "bn": ("উত্তর হল {}।", "০১২৩৪৫৬৭৮৯"),
    "de": ("Die Antwort ist {}.", ""),
    "en": ("The answer is {}.", ""),
    "es": ("La respuesta es {}.", ""),
    "fr": ("La réponse est {}.", ""),
    "ja": ("答えは{}です。", "０１２３４５６７８９"),
    "ru": ("Ответ — {}.", ""),
    "sw": ("Jibu ni {}.", ""),
    "te": ("సమాధానం {}.", "౦౧౨౩౪౫౬౭౮౯"),
    "th": ("คำตอบคือ {}", "๐๑๒๓๔๕๖๗๘๙"),
    "zh": ("答案是 {}。", "０１２３４５６７８９"),
}
"""How MGSM's worked examples end, and the digits of the language where it has its own."""


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    with MathVerifier(workers=2, time_limit=20.0) as verifier:
        yield verifier


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (DATA / name).is_dir(), reason=f"shared/data/{name} is not on this machine")


def rows(path: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / path).open()]


def gsm8k() -> list[str]:
    return [row["answer"] for split in ("train", "test") for row in rows(f"gsm8k/{split}.jsonl")]


def not_right(verifier: MathVerifier, completions: list[str], answers: list[str]) -> list[tuple[str, str, str]]:
    found = verifier.verify(completions, answers)
    return [
        (completion, answer, verdict.reason)
        for completion, answer, verdict in zip(completions, answers, found, strict=True)
        if verdict.status is not Status.RIGHT
    ]


def right(verifier: MathVerifier, completions: list[str], answers: list[str]) -> list[tuple[str, str, str]]:
    found = verifier.verify(completions, answers)
    return [
        (completion, answer, verdict.reason)
        for completion, answer, verdict in zip(completions, answers, found, strict=True)
        if verdict.status not in (Status.WRONG, Status.UNPARSABLE)
    ]


def with_a_digit_changed(answers: list[str]) -> list[tuple[str, str]]:
    """Each answer once for each of its digits, with that digit another one; and the answer itself."""
    random_ = random.Random(0)
    return [
        (
            answer[: digit.start()] + random_.choice("0123456789".replace(digit.group(), "")) + answer[digit.end() :],
            answer,
        )
        for answer in answers
        for digit in re.finditer(r"\d", answer)
    ]


def written(form: str) -> Callable[[str], str]:
    return lambda answer: form.replace("{}", answer)


FORMS = pytest.mark.parametrize("form", ["{}", "${}$", r"\boxed{{}}", "So it is.\n#### {}"])


@needs("gsm8k")
@FORMS
def test_every_gsm8k_answer_is_right(verifier: MathVerifier, form: str):
    solutions = gsm8k()
    assert len(solutions) == 8_792
    final = [solution.rpartition("####")[2].strip() for solution in solutions]
    assert not_right(verifier, list(map(written(form), final)), solutions) == []
    assert not_right(verifier, final, list(map(written(form), final))) == []


@needs("gsm8k")
def test_every_gsm8k_solution_is_right_and_no_other_rows_solution_is(verifier: MathVerifier):
    solutions = gsm8k()
    final = [solution.rpartition("####")[2].strip() for solution in solutions]
    assert not_right(verifier, solutions, final) == []
    others = [(solutions[i - 1], own) for i, own in enumerate(final) if final[i - 1] != own]
    assert len(others) > 8_000
    assert right(verifier, [solution for solution, _ in others], [own for _, own in others]) == []


@needs("gsm8k")
def test_no_gsm8k_answer_with_a_digit_changed_is_right(verifier: MathVerifier):
    changed = with_a_digit_changed([solution.rpartition("####")[2].strip() for solution in gsm8k()])
    assert len(changed) > 20_000
    assert right(verifier, [f"The answer is {other}." for other, _ in changed], [own for _, own in changed]) == []


@needs("math500")
@FORMS
def test_every_math500_answer_is_right(verifier: MathVerifier, form: str):
    gold = [row["answer"] for row in rows("math500/test.jsonl")]
    assert len(gold) == 500
    assert not_right(verifier, list(map(written(form), gold)), gold) == []
    assert not_right(verifier, [rf"\boxed{{{answer}}}" for answer in gold], list(map(written(form), gold))) == []


@needs("math500")
def test_every_math500_solution_is_right(verifier: MathVerifier):
    found = rows("math500/test.jsonl")
    assert not_right(verifier, [row["solution"] for row in found], [row["answer"] for row in found]) == []


@needs("math500")
def test_no_math500_answer_with_a_digit_changed_is_right(verifier: MathVerifier):
    changed = with_a_digit_changed([row["answer"] for row in rows("math500/test.jsonl")])
    assert len(changed) > 1_000
    assert right(verifier, [rf"\boxed{{{other}}}" for other, _ in changed], [own for _, own in changed]) == []


@needs("mgsm")
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_mgsm_answer_is_right_as_its_language_writes_it(verifier: MathVerifier, language: str):
    lines = (DATA / "mgsm" / f"mgsm_{language}.tsv").read_text().splitlines()
    gold = [line.split("\t")[1] for line in lines]
    assert len(gold) == 250
    sentence, digits = LANGUAGES[language]
    assert not_right(verifier, gold, gold) == []
    assert not_right(verifier, [f"12 + 3 = 15\n#### {answer}" for answer in gold], gold) == []
    assert not_right(verifier, [rf"\boxed{{{answer}}}" for answer in gold], gold) == []
    assert not_right(verifier, [f"12 + 3 = 15. {sentence.format(answer)}" for answer in gold], gold) == []
    changed = with_a_digit_changed(gold)
    assert right(verifier, [sentence.format(other) for other, _ in changed], [own for _, own in changed]) == []
    if digits:
        own = [answer.translate(str.maketrans("0123456789", digits)) for answer in gold]
        assert not_right(verifier, [sentence.format(answer) for answer in own], gold) == []
        assert not_right(verifier, gold, own) == []


@needs("svamp")
def test_every_svamp_answer_is_right(verifier: MathVerifier):
    problems = json.loads((DATA / "svamp" / "SVAMP.json").read_text())
    gold = [str(problem["Answer"]) for problem in problems]
    assert len(gold) == 1_000
    assert not_right(verifier, [answer.removesuffix(".0") for answer in gold], gold) == []
    changed = with_a_digit_changed([answer.removesuffix(".0") for answer in gold])
    assert right(verifier, [other for other, _ in changed], [f"{float(own)}" for _, own in changed]) == []
