"""Plain numbers as people and models write them, read exactly: 72, $1,080.50, 1 1/2, \\frac{3}{4}, 50\\%, 5 km, x = 7.

Nothing is evaluated: a text is one number, with decoration that does not change it, or it is not a number at all.
"""

import re
from fractions import Fraction
from functools import lru_cache

LONGEST = 200
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+"
_POWER = r"(?:[eE]([+-]?\d{1,3})|\s*(?:\\times|\\cdot|×|\*)\s*10\s*\^\s*\{?\s*([+-]?\d{1,3})\s*\}?)?"
_NUMBER = re.compile(rf"([+-]?)\s*({_DIGITS}){_POWER}")
_RATIO = re.compile(rf"([+-]?)\s*(?:\\[dt]?frac\s*)?(?:\{{?({_DIGITS})\}}?\s*/\s*\{{?([+-]?(?:{_DIGITS}))\}}?)")
_FRAC = re.compile(
    rf"([+-]?)\s*\\[dt]?frac\s*(?:\{{\s*([+-]?(?:{_DIGITS}))\s*\}}|(\d))\s*(?:\{{\s*({_DIGITS})\s*\}}|(\d))"
)
_MIXED = re.compile(r"([+-]?)\s*(\d{1,9})(?:\s+(?=\d)|\s*(?=\\))(\d.*|\\[dt]?frac.*)")
_DECORATION = re.compile(r"\\(?:left|right|displaystyle|[,;: ])|\\?[$%]|[€£¥°`]|\^\s*(?:\{\s*\\circ\s*\}|\\circ)")
_NO_SPACE = re.compile(r"\\!|\{,\}(?=\d)|\\,(?=\d{3}(?!\d))")
_TEXT_UNIT = re.compile(r"\\(?:text|mbox|mathrm|textrm)\s*\{[^{}]*\}(?:\^\{?\d\}?)?\s*$")
_NAME = re.compile(r"^\s*(?:[A-Za-z]\w{0,20}|\\[a-z]+)\s*=\s*(?=[^=])")
_UNITS = re.compile(
    r"(?<=[\d.}])(?:\s+[mgshL]|\s*(?:cm|mm|km|kg|mg|ml|mL|lb|oz|ft|in|yd|hr|am|pm|mi)(?:\^\{?[23]\}?)?"
    r"|\s+([A-Za-z]{3,30}(?:[\s/]+[A-Za-z]{1,30}){0,3}))$"
)
_OTHER_WORDS = """
and not nor but isn are was than more less over plus minus times million billion trillion thousand hundred dozen half
third quarter squared cubed factorial mod sqrt sin cos tan log exp inf infinity choose phi tau theta alpha beta or to
of is no if when because since pi e x y z n k i
"""
_NOT_UNITS = frozenset(_OTHER_WORDS.split())


@lru_cache(maxsize=65536)
def plain_number(text: str) -> Fraction | None:
    """The number that a text is, exactly; None when it is anything else (a sum, a power, other undone arithmetic).

    Thousands commas, currency and per-cent signs, degree signs, units, a leading `x =` and a closing full stop are
    dropped: "50%" is 50. A power of ten may follow (1.5e3, 1.5 \\times 10^{3}) with an exponent below 1000.
    """
    if len(text) > LONGEST:
        return None
    bare = undecorated(text)
    if match := _NUMBER.fullmatch(bare):
        sign, digits, exponent, latex_exponent = match.groups()
        value = Fraction(_digits(digits)) * Fraction(10) ** int(exponent or latex_exponent or 0)
        return -value if sign == "-" else value
    if (match := _MIXED.fullmatch(bare)) and (part := ratio(match[3])) is not None and 0 <= part < 1:
        value = int(match[2]) + part
        return -value if match[1] == "-" else value
    return ratio(bare)


def ratio(bare: str) -> Fraction | None:
    """The value of a/b or \\frac{a}{b} with plain a and b; None for anything else."""
    if match := _RATIO.fullmatch(bare):
        sign, above, below = match.groups()
    elif match := _FRAC.fullmatch(bare):
        sign, above, below = match.group(1), match.group(2) or match.group(3), match.group(4) or match.group(5)
    else:
        return None
    bottom = Fraction(_digits(below))
    if not bottom:
        return None
    value = Fraction(_digits(above)) / bottom
    return -value if sign == "-" else value


def undecorated(text: str) -> str:
    """A text without what surrounds a number: signs of currency and per cent, units, a leading name, a full stop."""
    bare = _NO_SPACE.sub(lambda match: "," if "{" in match.group() else "", text.replace("−", "-")).strip(" \t\r\n*_")
    bare = _TEXT_UNIT.sub("", bare)
    bare = _DECORATION.sub(" ", bare).strip()
    bare = _NAME.sub("", bare, count=1)
    if bare.endswith(".") and bare[:-1].strip():
        bare = bare[:-1].strip()
    unit = _UNITS.search(bare)
    if unit and not _NOT_UNITS & set(re.split(r"[\s/]+", (unit[1] or "").lower())):
        bare = bare[: unit.start()].strip()
    if bare.startswith("{") and bare.endswith("}") and bare.count("{") == 1:
        bare = bare[1:-1].strip()
    return bare


def _digits(text: str) -> str:
    digits = text.replace(",", "")
    return digits + "0" if digits.endswith(".") else digits
