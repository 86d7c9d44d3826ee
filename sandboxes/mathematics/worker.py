"""Child process that compares two mathematical texts, element by element, with math-verify. Imports no torch.

Nothing limits a comparison from inside: math-verify's own time limits are SIGALRM handlers, which busy C code never
reaches. The parent kills this process instead. No parsed object leaves it, not even as text.
"""

import json
import logging
import re
import resource
import sys
from collections.abc import Callable
from functools import lru_cache

from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, normalize_latex
from math_verify import verify
from math_verify.parser import parse_latex_cached
from sympy import Basic, Expr, Float, Rational

from gemsmith.sandboxes.mathematics.characters import plain
from gemsmith.sandboxes.mathematics.comparison import known
from gemsmith.sandboxes.mathematics.numerals import without_unit
from gemsmith.sandboxes.mathematics.structure import equal

MEMORY_LIMIT = 2 << 30
DIGITS = 30
"""Number of digits of numerical evaluation: enough to distinguish a number from an approximation of it."""
_BARE_ROOT = re.compile(r"\\?sqrt\s*(\d+)")
_BARE_COMMAND = re.compile(r"(?<![A-Za-z\\])(pi|theta|alpha|beta|sin|cos|tan|cot|sec|csc|log|ln)(?![A-Za-z])")
_NORMALIZATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
_FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "subprocess.",
    "socket.connect",
    "shutil.",
)
_WARM_UP = (
    (r"\frac{1}{2} x", "0.5x"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    ("x^2 - 1", "(x - 1)(x + 1)"),
    (r"y = 2x + \pi", r"2x + \pi"),
    (r"x \le 2", r"(-\infty, 2]"),
)


class _UnparsableError(Exception):
    """An answer is not mathematics; the message says why."""


class _NoTruthError(Exception):
    """A ground truth is not mathematics."""


def open_comparison(arguments: list[str]) -> Callable[[bytes], bytes]:
    """Return the handler of comparison requests, and limit this process's memory to 2 GiB."""
    logging.disable(logging.CRITICAL)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for truth, answer in _WARM_UP:  # the first parse builds tables: that is not to be counted against a sample
        _decide(answer, truth)
    sys.addaudithook(_refuse)
    return compare


def compare(request: bytes) -> bytes:
    """Answer {"answer", "truth"} with {"status", "reason"}; the statuses are those of `gemsmith.sandboxes.verdict`."""
    texts = json.loads(request)
    try:
        status, reason = _decide(texts["answer"], texts["truth"])
    except MemoryError:
        status, reason = "out_of_memory", f"the comparison needed more than {MEMORY_LIMIT >> 30} GiB"
    except RecursionError:
        status, reason = "unparsable", "nested too deeply"
    except Exception as error:
        status, reason = "unparsable", f"{type(error).__name__} while comparing"
    return json.dumps({"status": status, "reason": reason}).encode()


def _decide(answer: str, truth: str) -> tuple[str, str]:
    try:
        same = equal(plain(answer), plain(truth), _same)
    except _UnparsableError as error:
        return "unparsable", str(error)
    except _NoTruthError:
        return "wrong", "the ground truth is not mathematics, and the answer is another text"
    return ("right", "equal by math-verify") if same else ("wrong", "not equal by math-verify")


def _same(answer: str, truth: str) -> bool:
    found = known(answer, truth)
    if found is not None:
        return found
    wanted = _parsed_or(_NoTruthError(), truth)
    given = _parsed_or(_UnparsableError("not understood as mathematics"), answer)
    obvious = _obvious(given, wanted)
    if obvious is not None:
        return obvious
    return verify([wanted], [given], allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True)


def _parsed_or(otherwise: Exception, text: str) -> object:
    try:
        return _parsed(text)
    except (MemoryError, RecursionError):
        raise
    except Exception:
        raise otherwise from None


@lru_cache(maxsize=1024)
def _parsed(text: str) -> object:
    """Parse a text, with decimals as exact fractions."""
    bare = _BARE_COMMAND.sub(r"\\\1", _BARE_ROOT.sub(r"\\sqrt{\1}", without_unit(text)))
    found = parse_latex_cached(normalize_latex(bare, _NORMALIZATION))
    decimals = found.atoms(Float) if isinstance(found, Basic) else ()
    return found.xreplace({decimal: Rational(str(decimal)) for decimal in decimals}) if decimals else found


def _obvious(given: object, wanted: object) -> bool | None:
    """Return whether two expressions are equal, if that is quickly decided; None to leave it to math-verify."""
    if not (isinstance(given, Expr) and isinstance(wanted, Expr)) or given.free_symbols != wanted.free_symbols:
        return None
    try:
        return _identical(given, wanted) if wanted.free_symbols else _near(given, wanted)
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return None


def _near(given: Expr, wanted: Expr) -> bool | None:
    """Return False if two numbers differ in their first 25 digits; math-verify ignores differences below 10^-15."""
    gap = abs((given - wanted).evalf(DIGITS, maxn=10 * DIGITS))
    return None if bool(gap <= Float(10, DIGITS) ** (5 - DIGITS) * abs(wanted.evalf(DIGITS))) else False


def _identical(given: Expr, wanted: Expr) -> bool | None:
    """Return False if two expressions differ at a point, True if their difference is the zero polynomial."""
    difference, symbols = given - wanted, sorted(wanted.free_symbols, key=str)
    point = {symbol: Float(0.6180339887) + Float(0.1414213562) * i for i, symbol in enumerate(symbols)}
    gap, size = difference.evalf(subs=point), wanted.evalf(subs=point)
    if gap.is_number and size.is_number and gap.is_finite and bool(abs(gap) > 1e-6 * (1 + abs(size))):
        return False
    return True if difference.is_polynomial(*symbols) and difference.expand() == 0 else None


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse to evaluate strings as numbers: an additional safeguard, because sympy would evaluate code."""
    if event.startswith(_FORBIDDEN):
        raise PermissionError(event)
