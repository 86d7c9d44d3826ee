"""Exact reading of plain numbers as people and models write them: 72, $1,080.50, 1 1/2, \\frac{3}{4}, 50\\%, 5 km, x =
7.

Nothing is evaluated: a text is one number, with decoration that does not change it, or it is not a number at all.
Digits may be of any script. Ambiguous signs are read as in English (1,234 is a thousand, 1.234 is not); the other
reading is used only where it is unambiguous: 1.234.567 and 1.234,56 and 18,50 €.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from gemsmith.sandboxes.mathematics.characters import plain
from gemsmith.sandboxes.mathematics.languages import is_unit

LONGEST = 200
_NARROW = "[\u00a0\u2009\u202f]"
_DIGITS = "|".join(
    (
        r"(?:(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}|\d{1,3}(?:'\d{3})+|\d+)(?:\.\d*)?",  # 1,234.5 1,00,000
        r"\.\d+",
        r"\d{1,3}(?:\.\d{3}){2,}(?:,\d+)?",  # 1.234.567,8
        r"\d{1,3}(?:\.\d{3})+,(?!\d{3}(?!\d))\d+",  # 1.234,56
        rf"\d{{1,3}}(?:{_NARROW}\d{{3}})+(?:[.,]\d+)?)",  # 1 234,5
    )
)
_COMMA = re.compile(r"([+-]?)\s*(\d+),(\d{1,2}|\d{4,})")
_EXPONENT = r"(?:\{\s*([+-]?\d{1,3})\s*\}|([+-]?\d{1,3}))"
_POWER = rf"(?:[eE]([+-]?\d{{1,3}})|\s*(?:\\times|\\cdot|\*|x(?=\s*10\s*\^))\s*10\s*\^\s*{_EXPONENT})?"
_NUMBER = re.compile(rf"([+-]?)\s*({_DIGITS}){_POWER}")
_TEN = re.compile(r"([+-]?)\s*10\s*\^\s*(?:\{\s*([+-]?\d{1,3})\s*\}|(\d{1,3}))")
_REPEATING = re.compile(r"([+-]?)\s*(\d{0,20})\.(\d{0,20})\\overline\s*(?:\{\s*(\d{1,20})\s*\}|(\d))")
_SIGNED = rf"\s*([+-]?\s*{_DIGITS})\s*"
_RATIO = re.compile(rf"([+-]?)\s*(?:\(?{_SIGNED}\)?)/(?:\(?{_SIGNED}\)?)")
_FRAC = re.compile(rf"([+-]?)\s*\\[dtc]?frac\s*(?:\{{{_SIGNED}\}}|(\d))\s*(?:\{{{_SIGNED}\}}|(\d))")
_MIXED = re.compile(r"([+-]?)\s*(\d{1,9})(?:\s+(?=\d)|\s*(?=\\))(\d.*|\\[dtc]?frac.*)")
_NO_SPACE = re.compile(r"\\!\s*|\{,\}(?=\d)|(?<=\d)\\[, ](?=\d{3}(?!\d))")
_CURRENCY = re.compile(r"\\?\$|[€£¥₹₽฿৳₩₺]|\\(?:euro|pounds|EUR)\b|\b(?:US|USD|EUR|GBP|Rs\.?)(?=\s*\\?[$\d])")
_SIGN = re.compile(r"%|\\circ(?![a-z])|\\degree(?![a-z])")
_LOOSE = re.compile(
    r"\\(?:left|right|displaystyle|quad|[,;: ])|\\?%|`|\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree|\u00a0"
)
_TEXT_UNIT = re.compile(r"\\(?:text|mbox|mathrm|textrm|operatorname)\s*\{([^{}]*)\}(\s*\^\s*\{?\s*\d\s*\}?)?\s*$")
_SHORT_UNIT = r"cm|mm|km|kg|mg|ml|mL|lbs?|oz|ft|in|yd|hrs?|am|pm|a\.m|p\.m|mi|mph|kph|km/h|m/s|m(?=\^)"
_LETTER = r"[^\x00-\x40\x5b-\x60\x7b-\x7f\s]"  # of any script, with its vowel signs
_UNIT_WORDS = rf"{_LETTER}{{2,30}}(?:[\s/.]+{_LETTER}{{1,30}}){{0,4}}|[^\x00-\x7f]"
_PLAIN_UNIT = re.compile(
    rf"(?<=[\d}}%)i])(?:\s+([mgshL])|\s*({_SHORT_UNIT})|(?:\s+|(?=[^\x00-\x7f]))({_UNIT_WORDS}))"
    r"(\s*\^\s*\{?\s*[23]\s*\}?)?\s*$"
)
_FONT = re.compile(r"\\(?:mathbf|boldsymbol|bm|mathit|underline)\s*\{([^{}]*)\}|\\(?:bf|rm|it|sf)(?![a-z])")
_MARKS = re.compile(r"(?<!\\)\$|\\\$|\\[()\[\]](?!\w)|\*\*|\\?%|\\left(?![a-z])|\\right(?![a-z])")
_DEGREES_LAST = re.compile(r"\s*(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree)\s*$")
_NO_NAME = r"(?!(?i:let|if|suppose|assume|assuming|when|where)\b)"
_WORDS = r"[A-Za-z]\w{0,30}(?:\s[A-Za-z]\w{0,30}){0,5}"
_NAME = re.compile(
    rf"\s*({_NO_NAME}(?:{_WORDS}|\\text\s*\{{[^{{}}]{{1,40}}\}}|\\[A-Za-z]+)(?:_\{{?\w{{1,9}}\}}?|\([\w, ]{{1,20}}\))?)"
    r"\s*(?:=|\\in(?![a-z])|\\approx)\s*(?=[^=\s])"
)
_ABOUT = re.compile(
    r"^(?:(?:exactly|only|just|about|around|approximately|roughly|a\s+total\s+of|equal\s+to|\\approx|~)\s*)+(?=\W*\d)",
    re.I,
)
_NEGATIVE = re.compile(r"^(?:minus|negative)\s+(?=\\?[$\d.])", re.IGNORECASE)
_ASIDE = re.compile(r"\s*\([^()\d=+*/^\\]{3,60}\)$")


@dataclass(frozen=True)
class Quantity:
    """A text split into the `bare` number, its unit and its name, if any."""

    bare: str
    unit: str | None = None
    name: str | None = None


@lru_cache(maxsize=65536)
def plain_number(text: str) -> Fraction | None:
    """Return the exact number that a text is; None for anything else (a sum, a power, other unevaluated arithmetic).

    Thousands separators, currency and per-cent signs, degree signs, units, a leading `x =` and a closing full stop are
    dropped: "50%" is 50. A power of ten may follow (1.5e3, 1.5 \\times 10^{3}) with an exponent below 1000.
    """
    if len(text) > LONGEST:
        return None
    found = quantity(text)
    if found.unit is not None and (match := _COMMA.fullmatch(found.bare)):  # a list has no unit: it is a decimal comma
        sign, whole, part = match.groups()
        return _signed(sign, Fraction(f"{whole}.{part}"))
    bare = found.bare
    if match := _NUMBER.fullmatch(bare):
        sign, digits, *exponents = match.groups()
        exponent = int(next((exponent for exponent in exponents if exponent), 0))
        return _signed(sign, Fraction(_digits(digits)) * Fraction(10) ** exponent)
    if match := _TEN.fullmatch(bare):
        return _signed(match[1], Fraction(10) ** int(match[2] or match[3]))
    if match := _REPEATING.fullmatch(bare):
        sign, whole, start, long, short = match.groups()
        period = long or short
        tail = Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(start))
        return _signed(sign, Fraction(f"{whole or 0}.{start or 0}") + tail)
    if (match := _MIXED.fullmatch(bare)) and (part := ratio(match[3])) is not None and 0 <= part < 1:
        return _signed(match[1], int(match[2]) + part)
    return ratio(bare)


def ratio(bare: str) -> Fraction | None:
    """Return the value of a/b or \\frac{a}{b} with plain a and b; None for anything else."""
    if match := _RATIO.fullmatch(bare):
        sign, above, below = match.groups()
    elif match := _FRAC.fullmatch(bare):
        sign, above, below = match[1], match[2] or match[3], match[4] or match[5]
    else:
        return None
    bottom = Fraction(_digits(below))
    return _signed(sign, Fraction(_digits(above)) / bottom) if bottom else None


@lru_cache(maxsize=65536)
def quantity(text: str) -> Quantity:
    """Remove currency and per-cent signs, units, a leading name and a closing full stop from around a number."""
    bare = _tidied(text)
    name = _NAME.match(bare)
    if name:
        bare = bare[name.end() :]
    bare, unit = _without_text_unit(bare)
    currency = _CURRENCY.search(bare)
    bare = _CURRENCY.sub(" ", bare) if currency else bare
    sign = _SIGN.search(bare)
    bare = _LOOSE.sub(" ", bare).strip()
    bare = _NEGATIVE.sub("-", _ABOUT.sub("", _ASIDE.sub("", bare)))
    match = _PLAIN_UNIT.search(bare)
    if match and (match[3] is None or is_unit(match[3])):
        unit = (match[1] or match[2] or match[3]) + (match[4] or "")
        bare = bare[: match.start()].strip()
    if bare.startswith("{") and bare.endswith("}") and bare.count("{") == 1:
        bare = bare[1:-1].strip()
    around = currency or sign
    return Quantity(bare, unit or (around.group().lstrip("\\") if around else None), name[1] if name else None)


def without_unit(text: str) -> str:
    """Return an expression without the unit after it, and without marks that are not mathematics."""
    bare, _ = _without_text_unit(_MARKS.sub(" ", _tidied(text)).strip())
    match = _PLAIN_UNIT.search(bare)
    if match and match[1] is None and (match[3] is None or is_unit(match[3])):
        bare = bare[: match.start()]
    return _DEGREES_LAST.sub("", bare)


def _tidied(text: str) -> str:
    bare = _NO_SPACE.sub(lambda match: "," if "{" in match.group() else "", plain(text)).strip(" \t\r\n*_`")
    bare = _FONT.sub(r"\1", bare) if "\\" in bare else bare
    return bare[:-1].strip() if bare.endswith(".") and bare[:-1].strip() else bare


def _without_text_unit(bare: str) -> tuple[str, str | None]:
    unit = None
    while (match := _TEXT_UNIT.search(bare)) and bare[: match.start()].strip() and is_unit(match[1] or "times"):
        unit, bare = (match[1] + (match[2] or "")).strip() or unit, bare[: match.start()].strip()
    return bare, unit


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


def _digits(text: str) -> str:
    """Return digits as Python reads them."""
    digits = re.sub(r"[\s'\u00a0\u2009\u202f]", "", text)
    if digits.count(".") > 1 or re.search(r"\.\d+,", digits) or (re.search(_NARROW, text) and "," in digits):
        digits = digits.replace(".", "").replace(",", ".")
    digits = digits.replace(",", "")
    return digits + "0" if digits.endswith(".") else digits
