"""A kind of instruction: its id, its fields, and the function that checks a text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gemsmith.sandboxes.instructions.fields import Field


@dataclass(frozen=True)
class Kind:
    """A kind of verifiable instruction.

    Attributes:
        id: its name in IFEval, "group:name".
        check: function of a text that is not blank and one keyword argument per field; True if the text follows it.
        fields: the keyword arguments, all of them required.
    """

    id: str
    check: Callable[..., bool]
    fields: Mapping[str, Field] = field(default_factory=dict)
