"""IFEval's 25 instructions by id, with their fields read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.suggestions import did_you_mean
from gemsmith.sandboxes.instructions import (
    casing,
    combination,
    keywords,
    language,
    layout,
    length,
    punctuation,
    start_end,
)
from gemsmith.sandboxes.instructions.kind import Kind
from gemsmith.sandboxes.instructions.variants import variants

NEAR = 0.5
"""Smallest likeness (difflib's ratio) of an id or a field that a message suggests."""
LONGEST_TEXT = 1 << 18
"""Maximum length in characters, about 64k tokens. A longer text follows no instruction, so that none takes long."""

_GROUPS = (keywords, length, layout, casing, punctuation, start_end, combination, language)
KINDS: Mapping[str, Kind] = {kind.id: kind for group in _GROUPS for kind in group.KINDS}


@dataclass(frozen=True)
class Instruction:
    """One instruction with its values. Created by `instruction`."""

    kind: Kind
    values: Mapping[str, Any]

    def followed(self, text: str, strict: bool = True) -> bool:
        """Return True if a text follows it, as written (strict) or in any of its `variants` (loose). A blank text
        never does.
        """
        if len(text) > LONGEST_TEXT:
            return False
        tried = [text] if strict else variants(text)
        return any(one.strip() and self.kind.check(one, **self.values) for one in tried)


def instruction(id: str, fields: Mapping[str, Any] | None = None) -> Instruction:
    """Return an instruction from its id and its fields; a field that is None counts as absent, as in tables.

    Raises:
        UserError: the id or a field is unknown, or a field is missing or has a wrong value.
    """
    if not isinstance(id, str) or id not in KINDS:
        raise UserError(f"there is no instruction {id!r:.80}{did_you_mean(id, KINDS, NEAR)}.")
    if fields is not None and not isinstance(fields, Mapping):
        raise UserError(f"instruction {id}: found the fields {fields!r:.80}, expected a mapping or null.")
    kind = KINDS[id]
    given = {name: value for name, value in (fields or {}).items() if value is not None}
    for name in given:
        if name not in kind.fields:
            near = did_you_mean(name, kind.fields, NEAR)
            raise UserError(
                f"instruction {id} has no field {name!r:.80}{near}; its fields are {', '.join(kind.fields) or 'none'}."
            )
    return Instruction(kind, {name: _value(kind, name, given.get(name)) for name in kind.fields})


def instructions(ids: object, fields: object) -> list[Instruction]:
    """Return the instructions of one prompt: IFEval's `instruction_id_list` and its `kwargs`, in the same order.

    Raises:
        UserError: see `instruction`; or the arguments are not two lists of one length.
    """
    if not isinstance(ids, list | tuple):
        raise UserError(f"found {ids!r:.80}, expected a list of instruction ids.")
    if not isinstance(fields, list | tuple):
        raise UserError(f"found {fields!r:.80}, expected a list with the fields of each instruction.")
    if len(ids) != len(fields):
        raise UserError(f"found {len(ids)} instruction ids but {len(fields)} sets of fields; expected one for each id.")
    return [instruction(id, given) for id, given in zip(ids, fields, strict=True)]


def _value(kind: Kind, name: str, value: object) -> Any:
    field = kind.fields[name]
    if value is None:
        raise UserError(f"instruction {kind.id} needs the field {name!r}: {field.expected}.")
    try:
        return field.read(value)
    except ValueError as error:
        raise UserError(f"instruction {kind.id}: found {name!r} = {value!r:.80}, expected {field.expected}.") from error
