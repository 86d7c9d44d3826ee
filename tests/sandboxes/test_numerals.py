from fractions import Fraction

import pytest

from sandboxes.numerals import plain_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("72", Fraction(72)),
        ("-5", Fraction(-5)),
        ("−5", Fraction(-5)),
        ("1,080", Fraction(1080)),
        (r"10{,}000", Fraction(10000)),
        (r"\$1,234.50", Fraction(2469, 2)),
        (".5", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        (r"-\frac{3}{4}", Fraction(-3, 4)),
        (r"\dfrac34", Fraction(3, 4)),
        ("-1 1/2", Fraction(-3, 2)),
        (r"2\frac{1}{4}", Fraction(9, 4)),
        (r"50\%", Fraction(50)),
        (r"90^\circ", Fraction(90)),
        (r"5\text{ cm}^2", Fraction(5)),
        ("18 dollars per day", Fraction(18)),
        ("x = 7.", Fraction(7)),
        ("1.5e3", Fraction(1500)),
        (r"1.5 \times 10^{3}", Fraction(1500)),
    ],
)
def test_a_decorated_number_is_read_exactly(text: str, number: Fraction):
    assert plain_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3 + 4",
        "5*6",
        "2**3",
        "5%6",
        "5 6",
        r"5\,6",
        "2^{10}",
        "5!",
        "5 pi",
        "5x",
        "5 million",
        "1/0",
        "1e9999",
        "5 or 6",
    ],
)
def test_anything_else_is_no_number(text: str):
    assert plain_number(text) is None
