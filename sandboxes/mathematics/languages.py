"""Words around answers in MGSM's eleven languages: announcements of a final answer, and words that are not units.

The announcements are those of MGSM's worked examples (Shi et al. 2022) and of prompts that request a last line
"Answer:", in each language.
"""

import re
import unicodedata

_SHORT = r"\s{0,9}(?::|=|—|–)"
"""Signs that announce an answer in any language, after the word for it."""
_EN = (
    r"(?<![^\W\d_])(?:(?:final|correct)\s{1,9})?answer(?:\s{1,9}(?:to|for|of)(?:\s{1,3}[^\W_]{1,20}){1,6}?)?[*_]{0,3}"
    r"(?:\s{0,9}(?::|=)|,?(?:\s{1,9}then|\s{1,9}therefore)?,?\s{1,9}(?:is|equals|will\s{1,9}be|would\s{1,9}be|must\s{1,9}be)\b)"
)
_DE = r"\b(?:antwort|endergebnis)[*_]{0,3}(?:SHORT|\s{1,9}(?:ist|lautet|beträgt)\b)"
_ES = r"\brespuesta(?:\s{1,9}(?:final|correcta))?[*_]{0,3}(?:SHORT|\s{1,9}(?:es|sería)\b)"
_FR = r"\bréponse(?:\s{1,9}(?:finale|correcte))?[*_]{0,3}(?:SHORT|\s{1,9}est\b)"
_RU = r"\bответ(?:ом)?[*_]{0,3}(?:SHORT|\s{1,9}-\s|\s{1,9}(?:это|равен|будет|является)\b)"
_SW = r"\bjibu(?:\s{1,9}(?:la\s{1,9}mwisho|sahihi))?[*_]{0,3}(?:SHORT|\s{1,9}ni\b)"
_JA = r"(?:答え|回答|解答|答)[*_]{0,3}(?:SHORT|\s{0,9}は)"
_ZH = r"(?:答案|答)[*_]{0,3}(?:SHORT|\s{0,9}(?:应该)?(?:是|为|為))"
_TH = r"คำตอบ(?:สุดท้าย|ที่ถูกต้อง)?[*_]{0,3}(?:SHORT|\s{0,9}(?:คือ|เป็น|เท่ากับ))"
_BN = r"উত্তর(?:টি)?[*_]{0,3}(?:SHORT|\s{0,9}ঃ|\s{1,9}(?:হলো|হল|হচ্ছে|হবে)|(?=\s{1,9}[$€₹৳]?\s?-?\d))"
_TE = r"(?:సమాధానం|జవాబు)[*_]{0,3}(?:SHORT|\s{1,9}అనేది|(?=\s{1,9}[$€₹]?\s?-?\d))"
_SO = r"(?:(?:therefore|thus|then|hence|simply|also|daher|donc|alors|entonces)\b,?)?"
_FURTHER = rf"[ \t:*_,]{{0,9}}(?:\n[ \t]{{0,9}}){{0,2}}{_SO}"


def _pattern(*phrases: str) -> re.Pattern[str]:
    either = "|".join(phrases).replace("SHORT", _SHORT)
    return re.compile(f"(?:{unicodedata.normalize('NFC', either)}){_FURTHER}", re.IGNORECASE)


ANNOUNCED_IN_ASCII = _pattern(_EN, _DE, _ES, _SW)
ANNOUNCED = _pattern(_EN, _DE, _ES, _FR, _RU, _SW, _JA, _ZH, _TH, _BN, _TE)

_MORE_OF_THE_NUMBER = """
and not nor but or is isn are was no if when because since as plus minus base times modulo mod squared cubed factorial
sqrt sin cos tan log exp inf infinity choose phi tau theta alpha beta pi
one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty sixty seventy eighty ninety
half halves hundred thousand million billion trillion dozen third fourth fifth sixth seventh eighth ninth tenth
hundredth thousandth
und oder mal halb millionen milliarde milliarden tausend hundert dutzend drittel viertel
y o u ni millón millones mil cien docena docenas tercio tercios cuarto cuartos
et ou moins fois millier milliers milliard mille douzaine demi demie
и или тысяча тысячи тысяч миллион миллиона миллионов миллиард миллиарда миллиардов млн млрд тыс сот дюжина дюжин
половина треть четверть
na au milioni elfu mia laki nusu robo dazeni
এবং ও বা অথবা হাজার লক্ষ লাখ কোটি শত ডজন অর্ধেক
మరియు లేదా వేల వేలు వెయ్యి లక్ష లక్షలు కోటి కోట్లు వంద మిలియన్ మిలియన్లు డజను సగం
"""
_NOT_UNITS = frozenset(unicodedata.normalize("NFC", _MORE_OF_THE_NUMBER).split())
_TIMES = frozenset(("times", "mal", "fois", "veces", "раз"))
_UNSPACED = re.compile(
    "千(?![克米瓦卡])|[一二三四五六七八九十百万億亿兆零〇半或和与又]|または|もしくは|あるいは|ダース|分之"
    "|ล้าน|แสน|หมื่น|พัน|ร้อย|หรือ|และ|ครึ่ง|โหล"
)
"""The same in Chinese, Japanese and Thai, which have no spaces between words."""


def is_unit(words: str) -> bool:
    """Return True if words after a number are its unit, and not part of the number (million) or another clause."""
    *before, last = re.split(r"[\s/.]+", words.strip().rstrip(".").lower())
    if last in _TIMES and not before:
        return True
    every = {*before, last}
    if any(unicodedata.category(sign) in ("Sm", "So") for sign in words if not sign.isascii()):
        return False
    single = len(last) == 1 and last.isascii()
    return (
        not single
        and not (every | {word.removesuffix("s") for word in every}) & _NOT_UNITS
        and not _UNSPACED.search(words)
    )
