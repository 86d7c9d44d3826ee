"""Long texts made to be slow: the time grows with the length, not with its square."""

import time
from collections.abc import Iterator

import pytest

from gemsmith.sandboxes.instructions.registry import KINDS, LONGEST_TEXT, Instruction, instruction

# None of them can be followed, so that a loose verdict tries every reading.
FIELDS = {
    "keywords": ["a" * 200, "(a+)+$"],
    "keyword": "(a|a)*b",
    "frequency": 10**9,
    "relation": "at least",
    "forbidden_words": ["a a " * 49 + "a b"] * 25 + ["a a " * 49 + "a"] * 25,
    "letter": "a",
    "let_frequency": 10**9,
    "let_relation": "at least",
    "num_words": 10**9,
    "num_sentences": 10**9,
    "num_paragraphs": 10**9,
    "nth_paragraph": 3,
    "first_word": "x",
    "num_bullets": 10**9,
    "num_highlights": 10**9,
    "section_spliter": "a a " * 50,
    "num_sections": 10**9,
    "num_placeholders": 10**9,
    "postscript_marker": "P.P.S",
    "capital_frequency": 10**9,
    "capital_relation": "at least",
    "end_phrase": "x" * 10**6,
    "prompt_to_repeat": "y" * 10**6,
    "language": "en",
}
PIECES = ["a", "a a ", "A. ", "P. P. ", " ", "\n", "* ", "*\n", "**a", "***", "[", "<<", "{", '{"a":', '"', ". ", "!"]


@pytest.fixture(scope="module")
def all_kinds() -> list[Instruction]:
    wanted = [instruction(kind.id, {name: FIELDS[name] for name in kind.fields}) for kind in KINDS.values()]
    for one in wanted:
        one.followed("hello there")  # the model of languages is loaded once
    return wanted


def hostile(length: int) -> Iterator[str]:
    for piece in PIECES:
        text = piece * (length // len(piece))
        yield text
        yield "\n".join(["x", text[4:], "y"])
    yield "[" * (length // 2) + "]" * (length // 2)
    yield "9" * length


def seconds(one: Instruction, text: str, strict: bool) -> float:
    start = time.process_time()
    one.followed(text, strict)
    return time.process_time() - start


@pytest.mark.parametrize("strict", [True, False])
def test_no_text_keeps_an_instruction_busy(all_kinds: list[Instruction], strict: bool):
    texts = list(hostile(LONGEST_TEXT // 8))
    slow = [(one.kind.id, text[:10]) for text in texts for one in all_kinds if seconds(one, text, strict) > 0.5]
    assert slow == []  # the slowest takes 0.05 s; in the square of the length it would be seconds


@pytest.mark.parametrize("piece", ["P. P. ", "*\n"])
def test_the_longest_text_is_judged_within_a_second(all_kinds: list[Instruction], piece: str):
    text = "\n".join(["x", piece * ((LONGEST_TEXT - 4) // len(piece)), "y"])
    assert [one.kind.id for one in all_kinds if seconds(one, text, strict=False) > 1.0] == []


def test_a_text_longer_than_any_answer_follows_nothing():
    no_comma = instruction("punctuation:no_comma")
    assert no_comma.followed("a" * LONGEST_TEXT)
    assert not no_comma.followed("a" * (LONGEST_TEXT + 1))
    assert not no_comma.followed("a" * 10**6, strict=False)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 5000 + "]" * 5000, '{"a":' * 50_000, "-" + "9" * 400_000 + "x"])
def test_deep_or_broken_json_is_not_json(text: str):
    assert not instruction("detectable_format:json_format").followed(text)


def test_a_text_that_is_not_valid_unicode_is_judged():
    assert instruction("language:response_language", {"language": "en"}).followed("The cat \ud800 sits on the mat.")
