"""Check of a python reward's options against the signature of its function or class."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from gemsmith.contracts.suggestions import did_you_mean

EVERY_CALL = ("prompts", "completions")
MISSPELT = 0.8
"""Similarity to a parameter (difflib's ratio) from which an option is a misspelling, not a column for **columns.
"lenght" and "length" have 0.83."""


ONLY_TRL = {
    "trainer_state": "TRL's `trainer_state` is not available; use a class that counts its own calls",
    "log_extra": "TRL's `log_extra` is not available; print the values, or return them as a reward of weight 0",
    "log_metric": "TRL's `log_metric` is not available; return the metric as a reward of weight 0",
    "environments": "TRL's `environments` are not available: a prompt has one completion, without tools",
}
"""Arguments of TRL's reward functions that are not supported, and the alternative to each."""


def option_fault(takes: Callable[..., Any], options: Mapping[str, Any]) -> str | None:
    """Return the fault of the options, as a sentence without its full stop, or None.

    A function's parameter without a default may be a column of the data, which is not known yet. A class's parameter
    without a default must be an option.
    """
    parameters = inspect.signature(takes).parameters.values()
    by_keyword = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [p.name for p in by_keyword]
    constructed = inspect.isclass(takes)
    if not constructed:
        names = [name for name in names if name not in EVERY_CALL]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for option in options:
        reserved = not constructed and option in EVERY_CALL
        misspelt = bool(difflib.get_close_matches(option, names, n=1, cutoff=MISSPELT))
        if reserved or (option not in names and (misspelt or not open_ended)):
            return f"found option {option!r}, unknown to {shown(takes)}{did_you_mean(option, names).rstrip('?')}"
    missing = [p.name for p in by_keyword if p.default is p.empty and p.name not in options]
    if constructed and missing:
        hint = did_you_mean(missing[0], options).rstrip("?")
        return f"{shown(takes)} needs the option {missing[0]!r}, which is not set{hint}"
    return None


def shown(takes: Callable[..., Any]) -> str:
    """Format a function or class with its parameters for a message, as "the function f(completions, scale=2)"."""
    texts = []
    for p in inspect.signature(takes).parameters.values():
        stars = "*" * (p.kind is p.VAR_POSITIONAL) + "**" * (p.kind is p.VAR_KEYWORD)
        texts.append(f"{stars}{p.name}" + ("" if p.default is p.empty else f"={p.default!r}"))
    kind = "class" if inspect.isclass(takes) else "function"
    return f"the {kind} {getattr(takes, '__name__', type(takes).__name__)}({', '.join(texts)})"
