"""Normalisation of mathematical characters of any script to LaTeX: ٣ and ３ are 3, − is -, √ is \\sqrt, ² is ^{2}."""

import re
import unicodedata
from functools import lru_cache

_FULLWIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_SIGNS = """
− - ‐ - ‑ - ‒ - – - ﹣ - ∼ ~ × \\times ✕ \\times ⋅ \\cdot · \\cdot ∙ \\cdot ÷ / ∕ / ⁄ / ± \\pm ∓ \\mp ＊ * ∗ *
√ \\sqrt ∞ \\infty π \\pi θ \\theta α \\alpha β \\beta γ \\gamma φ \\phi λ \\lambda ω \\omega
≤ \\le ⩽ \\le ≥ \\ge ⩾ \\ge ≠ \\ne ≈ \\approx ∪ \\cup ∩ \\cap ∈ \\in ∅ \\emptyset ∖ \\setminus
° ^\\circ º ^\\circ ′ ' ’ ' ‘ ' “ " ” " ٫ . ٬ , ٪ % ％ % 、 , ⟨ \\langle ⟩ \\rangle
½ \u00001/2 ⅓ \u00001/3 ⅔ \u00002/3 ¼ \u00001/4 ¾ \u00003/4 ⅕ \u00001/5 ⅛ \u00001/8
"""
_PAIRS = _SIGNS.split()
_TABLE: dict[int, str | int | None] = {
    **_FULLWIDTH,
    **{ord(sign): plain.replace("\0", " ") for sign, plain in zip(_PAIRS[::2], _PAIRS[1::2], strict=True)},
    **{ord(sign): r"\R" for sign in "ℝ"},
    **dict.fromkeys(map(ord, "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad\u061c"), None),
}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n")
_RAISED, _LOWERED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+"), re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋ₙ]+")
_ROOT = re.compile(r"√\s*(\d+|[A-Za-z])")
_DIGIT = re.compile(r"[^\W0-9A-Za-z_]")


def composed(text: str) -> str:
    """Return a text with composed accents and narrow full-width signs, for the search of words and marks."""
    return text if text.isascii() else unicodedata.normalize("NFC", text).translate(_FULLWIDTH)


@lru_cache(maxsize=4096)
def plain(text: str) -> str:
    """Return a text with ASCII digits and mathematical signs as LaTeX writes them; letters stay."""
    if text.isascii():
        return text
    text = _RAISED.sub(lambda run: f"^{{{run.group().translate(_SUPERSCRIPTS)}}}", text)
    text = _LOWERED.sub(lambda run: f"_{{{run.group().translate(_SUBSCRIPTS)}}}", text)
    text = _DIGIT.sub(lambda sign: str(unicodedata.decimal(sign.group(), sign.group())), text)
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    return "".join(_spelt(sign) for sign in text)


def _spelt(sign: str) -> str:
    replaced = _TABLE.get(ord(sign), sign)
    if replaced is None:
        return ""
    spelt = chr(replaced) if isinstance(replaced, int) else replaced
    return f"{spelt} " if spelt.startswith("\\") and spelt[-1].isalpha() else spelt
