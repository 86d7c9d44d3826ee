import pytest

from gemsmith.sandboxes.instructions.registry import instruction, instructions
from gemsmith.sandboxes.instructions.variants import variants
from gemsmith.sandboxes.instructions.verifier import verify
from gemsmith.sandboxes.verdict import Status


def test_a_loose_verdict_tries_eight_readings():
    assert variants("*a*\nb*\nc") == ["*a*\nb*\nc", "b*\nc", "*a*\nb*", "b*", "a\nb\nc", "b\nc", "a\nb", "b"]


def test_readings_that_are_the_same_are_tried_once():
    assert variants("a") == ["a", ""]


@pytest.mark.parametrize(
    "text",
    ['"a"', 'Sure:\n"a"', '"a"\nBye', 'Sure:\n"a"\nBye', '**"a"**', 'Sure:\n*"a"*\nBye'],
)
def test_a_preface_a_farewell_and_asterisks_are_forgiven_only_when_loose(text: str):
    quotation = instruction("startend:quotation")
    assert quotation.followed(text, strict=False)
    assert quotation.followed(text) == (text == '"a"')


def test_a_reading_that_is_left_blank_follows_nothing():
    assert not instruction("punctuation:no_comma").followed("a, b", strict=False)


def test_the_verdict_names_what_was_not_followed():
    wanted = instructions(["punctuation:no_comma", "startend:quotation"], [{}, None])
    right, wrong, loose = verify('"a"', wanted), verify('x\n"a, b"', wanted), verify('x, y\n"a"', wanted, strict=False)
    assert (right.score, right.status, right.reason) == (1.0, Status.RIGHT, "all of 2 instructions followed")
    assert (wrong.score, wrong.status) == (0.0, Status.WRONG)
    assert wrong.reason == "2 of 2 instructions not followed: punctuation:no_comma, startend:quotation"
    assert loose.score == 1.0
    with pytest.raises(ValueError, match="at least one"):
        verify("a", [])
