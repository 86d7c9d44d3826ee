"""Faults of a recipe, collected so that one message lists all of them with file, line and field."""

from collections.abc import Callable

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.escaping import visible
from gemsmith.contracts.planning import Keys


def dotted(keys: Keys) -> str:
    """Return the keys joined by dots; used if no document can give a better name."""
    return ".".join(str(key) for key in keys)


class Faults:
    """Collection of faults by field; `locate` turns the keys of a field into "file:line: name"."""

    def __init__(self, locate: Callable[[Keys], str] = dotted) -> None:
        self.locate = locate
        self.lines: list[str] = []

    def add(self, keys: Keys, text: str) -> None:
        """Add a fault of the field at `keys`; `text` describes it."""
        line = visible(f"{self.locate(keys)}: {text}", keep="")  # a newline in a key must not look like another fault
        if line not in self.lines:
            self.lines.append(line)

    def raise_if_any(self) -> None:
        """Raise one UserError with a line for each fault."""
        if self.lines:
            raise UserError("\n".join(self.lines))
