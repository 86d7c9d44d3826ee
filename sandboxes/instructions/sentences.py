"""Sentence count by rules for English, without a trained model."""

import re
from itertools import pairwise

_TOKEN = re.compile(r"\S+")
_END = re.compile(r"""[.?!](?=[])}"'“”’*_:@({\[!?]|$)""")
_OTHER_STOPS = re.compile("[。！？।؟۔]")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_LIST_MARK = re.compile(r"\W?(?:\d+|[A-Za-z])\.")
_OPENING = "([{\"'“‘*_"

_TITLES = "mr mrs ms dr prof rev hon st gen col lt sgt capt cmdr gov sen rep pres vs e.g i.e cf ca"
_ENDINGS = """
etc inc ltd co corp bros sr jr al approx est dept a.m p.m u.s u.k u.n d.c ph.d b.a m.a b.sc m.sc m.d b.c a.d
jan feb apr jun jul aug sep sept oct nov dec
"""
_NUMBERED = "no nos fig figs vol pp eq sec ch"
_NEVER_LAST, _SOMETIMES_LAST, _BEFORE_NUMBERS = (frozenset(x.split()) for x in (_TITLES, _ENDINGS, _NUMBERED))


def count_sentences(text: str) -> int:
    """Return the number of sentences. They end at . ? or !, possibly before closing marks; a line break alone ends
    none.

    A full stop does not end a sentence inside a word (example.com), after a title, an initial or a list's number; after
    other abbreviations it does only before a capital. A part without letters or digits is not a sentence.
    """
    tokens = _TOKEN.findall(_OTHER_STOPS.sub("! ", text))
    count, begun = 0, False
    for token, after in pairwise([*tokens, ""]):
        if not begun and after and _LIST_MARK.fullmatch(token):
            continue
        begun = begun or _LETTER_OR_DIGIT.search(token) is not None
        if begun and (not after or _ends(token, after)):
            count, begun = count + 1, False
    return count


def _ends(token: str, after: str) -> bool:
    """Return True if a token ends its sentence before the next token."""
    ends = [end.start() for end in _END.finditer(token)]
    if not ends or token[ends[-1]] != ".":
        return bool(ends)
    word = token[: ends[-1]].lstrip(_OPENING)
    if len(word) == 1 and word.isupper() and word != "I":
        return False
    first = after.lstrip(_OPENING)[:1]
    if word.lower() in _BEFORE_NUMBERS:
        return not first.isdigit()
    if word.lower() in _SOMETIMES_LAST:
        return first.isupper()
    return word.lower() not in _NEVER_LAST
