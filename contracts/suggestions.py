"""Lists of accepted names for error messages, and the nearest one as a suggestion."""

import difflib
from collections.abc import Iterable

_COMPARED = 80
"""Number of characters of a name that are compared; difflib's time grows with its square."""


def did_you_mean(name: object, known: Iterable[str], likeness: float = 0.6) -> str:
    """Return `, did you mean "x"?` for the nearest of the known names, or nothing if none is near.

    Args:
        name: the unknown name; case is ignored.
        known: the accepted names.
        likeness: smallest ratio of difflib, from 0 to 1, at which a name is near.
    """
    names = {accepted.lower(): accepted for accepted in known}
    near = difflib.get_close_matches(str(name)[:_COMPARED].lower(), list(names), n=1, cutoff=likeness)
    return f', did you mean "{names[near[0]]}"?' if near else ""


def listed(names: Iterable[str], limit: int = 10) -> str:
    """Return `a, b or c`. Names after the first `limit` are cut; an empty list gives `(there is none)`."""
    known = list(names)
    if not known:
        return "(there is none)"
    if len(known) > limit:
        return ", ".join(known[:limit]) + ", ..."
    return " or ".join([", ".join(known[:-1]), known[-1]] if len(known) > 1 else known)
