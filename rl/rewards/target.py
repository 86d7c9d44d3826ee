"""Where a python reward's function is, and what it must accept to be called as TRL calls reward functions."""

import os
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import UserError


@dataclass(frozen=True)
class Target:
    """A function in a plug-in file (`path`) or in a module (`module`, a dotted name)."""

    function: str
    path: Path | None = None
    module: str | None = None


def resolve_target(target: str, root: Path) -> Target:
    """Find "file.py:function", beside the recipe or else in the working folder; a module is looked for when imported.

    Raises:
        UserError: neither of these forms, or there is no such file.
    """
    place, colon, function = target.rpartition(":")
    if not colon or not place or not function.isidentifier():
        raise UserError(f"target {target!r} is neither file.py:function nor package.module:function.")
    if not place.endswith(".py") and os.sep not in place:
        return Target(function, module=place)
    beside = root / Path(place).expanduser()
    path = beside if beside.is_file() else Path(place).expanduser()
    if not path.is_file():
        raise UserError(
            f"target {target!r}: no file {place} in {root.resolve()} or in the working folder {Path.cwd()}."
        )
    return Target(function, path=path.resolve())


@dataclass(frozen=True)
class Parameters:
    """What a function accepts: what it takes by keyword, what of that has no default, and whether it has **kwargs."""

    accepted: list[str]
    required: list[str]
    any_keyword: bool
    positional_only: list[str]


def signature_fault(parameters: Parameters, options: dict[str, object]) -> str | None:
    """What is wrong with a reward function's signature before its columns are known, or None."""
    expected = "a reward is called as f(prompts=..., completions=..., **columns)"
    if parameters.positional_only:
        return f"parameter {parameters.positional_only[0]} is positional-only, but {expected}"
    if not parameters.any_keyword:
        if "completions" not in parameters.accepted:
            return f"the function takes {', '.join(parameters.accepted) or 'nothing'}, but not completions; {expected}"
        unknown = [name for name in options if name not in parameters.accepted]
        if unknown:
            takes = ", ".join(parameters.accepted)
            return f"the reward's option {unknown[0]!r} is not a parameter of the function; it takes {takes}"
    return None
