"""Word lists of known names in messages, and suggest the nearest one."""

import difflib
from collections.abc import Iterable


def did_you_mean(found: object, known: Iterable[str]) -> str:
    """Return `, did you mean "x"?` for the nearest of the known names, or "" when none is near."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(found).lower(), list(names), n=1, cutoff=0.6)
    return f', did you mean "{names[near[0]]}"?' if near else ""


def listed(names: Iterable[str], limit: int = 10) -> str:
    """Return `a, b or c`; more than `limit` names are cut, none is `(there is none)`."""
    known = list(names)
    if not known:
        return "(there is none)"
    if len(known) > limit:
        return ", ".join(known[:limit]) + ", ..."
    return " or ".join([", ".join(known[:-1]), known[-1]] if len(known) > 1 else known)
