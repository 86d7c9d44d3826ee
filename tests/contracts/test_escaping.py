import pytest

from gemsmith.contracts.escaping import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 4 + 4 = 8", "plain 4 + 4 = 8"),
        ("naïve, 數學, عربي, 😀👩‍🔬", "naïve, 數學, عربي, 😀👩‍🔬"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x1b[2Jcleared\x9b1m", r"\x1b[2Jcleared\x9b1m"),
        ("line\nand\ttab", "line\nand\ttab"),
        ("over\rwritten\x08", r"over\rwritten\x08"),
        ("abc\u202edcba", r"abc\u202edcba"),
    ],
)
def test_controls_are_written_out_and_letters_stay(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_what_is_kept_can_be_chosen() -> None:
    assert visible("a\nb\tc", keep="") == r"a\nb\tc"
