"""One kind of instruction: its id, its fields, and the pure function that checks a text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gemsmith.sandboxes.instructions.fields import Field


@dataclass(frozen=True)
class Kind:
    """A kind of verifiable instruction.

    Attributes:
        id: its name in IFEval, "group:name".
        check: whether a text that is not blank follows it; called with the text and one keyword argument a field.
        fields: the keyword arguments, each of them required.
    """

    id: str
    check: Callable[..., bool]
    fields: Mapping[str, Field] = field(default_factory=dict)
