"""Runs inside a child process: parses and compares two mathematical texts with math-verify. Imports no torch.

Nothing limits a comparison from inside: math-verify's own time limits are SIGALRM handlers, which busy C code never
reaches. The parent kills this process instead. Nothing that was parsed leaves it, not even as text.
"""

import json
import logging
import resource
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify

MEMORY_LIMIT = 2 << 30


def open_comparison(arguments: list[str]) -> Callable[[bytes], bytes]:
    """The handler of comparison requests, with this process's memory limited to 2 GiB."""
    logging.disable(logging.CRITICAL)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _equal("\\frac{1}{2}", "0.5")  # the first parse builds tables: that is not to be counted against a sample
    return compare


def compare(request: bytes) -> bytes:
    """Answer {"answer", "truth"} with {"status", "reason"}; the statuses are those of `sandboxes.verdict`."""
    texts = json.loads(request)
    try:
        status, reason = _equal(texts["truth"], texts["answer"])
    except MemoryError:
        status, reason = "out_of_memory", f"the comparison needed more than {MEMORY_LIMIT >> 30} GiB"
    except RecursionError:
        status, reason = "unparsable", "nested too deeply"
    except Exception as error:
        status, reason = "unparsable", f"{type(error).__name__} while comparing"
    return json.dumps({"status": status, "reason": reason}).encode()


def _equal(truth: str, answer: str) -> tuple[str, str]:
    parsed_truth = _parsed_truth(truth)
    if not parsed_truth:
        return "wrong", "the ground truth is no mathematics, and the answer is not the same text"
    parsed_answer = _parsed(answer)
    if not parsed_answer:
        return "unparsable", "not understood as mathematics"
    if verify(parsed_truth, parsed_answer, timeout_seconds=None, raise_on_error=True):
        return "right", "equal by math-verify"
    return "wrong", "not equal by math-verify"


@lru_cache(maxsize=1024)
def _parsed_truth(text: str) -> list[Any]:
    return _parsed(text)


def _parsed(text: str) -> list[Any]:
    return parse(
        "\\boxed{" + text + "}",
        [LatexExtractionConfig(boxed_match_priority=0)],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
        raise_on_error=True,
    )
