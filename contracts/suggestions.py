"""Word lists of accepted names in error messages, and suggest the nearest one."""

import difflib
from collections.abc import Iterable

_COMPARED = 80
"""Characters of a name that are compared; difflib's time grows with their square."""


def did_you_mean(name: object, known: Iterable[str], likeness: float = 0.6) -> str:
    """Return `, did you mean "x"?` for the nearest of the known names, or nothing when none is near.

    Args:
        name: what was found; upper and lower case are not told apart.
        known: the accepted names.
        likeness: smallest ratio of difflib, from 0 to 1, at which a name is near.
    """
    names = {accepted.lower(): accepted for accepted in known}
    near = difflib.get_close_matches(str(name)[:_COMPARED].lower(), list(names), n=1, cutoff=likeness)
    return f', did you mean "{names[near[0]]}"?' if near else ""


def listed(names: Iterable[str], limit: int = 10) -> str:
    """Return `a, b or c`; more than `limit` names are cut, none is `(there is none)`."""
    known = list(names)
    if not known:
        return "(there is none)"
    if len(known) > limit:
        return ", ".join(known[:limit]) + ", ..."
    return " or ".join([", ".join(known[:-1]), known[-1]] if len(known) > 1 else known)
