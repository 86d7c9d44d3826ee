"""Functions of the user's own that a recipe names: where they are, and how they are imported."""

import difflib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.local import find_local

REWARDS = "gemsmith.rewards"
"""Entry point group in which an installed package offers reward functions by a bare name."""
_MODULE = "gemsmith_plugin"


@dataclass(frozen=True)
class Target:
    """A function or class in a plug-in file (`path`) or in a module (`module`, a dotted name)."""

    function: str
    path: Path | None = None
    module: str | None = None

    def arguments(self, root: Path) -> list[str]:
        """What `imported_function` is told about it, as texts that a child process can be given."""
        return [str(self.path or ""), self.module or "", self.function, str(root.resolve())]


def resolve_target(target: str, root: Path, group: str | None = None) -> Target:
    """Find "file.py:function", beside the recipe or else in the working folder; a module is looked for when imported.

    Args:
        target: what the recipe says.
        root: the recipe's folder.
        group: entry point group of installed packages, in which a bare name is looked for; None: there is none.

    Raises:
        UserError: none of these forms, no such file, or no or more than one such entry point.
    """
    place, colon, function = target.rpartition(":")
    if group is not None and not colon and not target.endswith(".py"):
        return _offered(target, group)
    if not colon or not place or not function.isidentifier():
        raise UserError(f"target {target!r} is neither file.py:function nor package.module:function.")
    if not place.endswith(".py") and os.sep not in place:
        return Target(function, module=place)
    path = find_local(root, place)
    if path is None or not path.is_file():
        places = list(dict.fromkeys([root.resolve(), Path.cwd()]))
        names = [file.name for folder in places for file in sorted(folder.glob("*.py"))]
        where = " or in the working folder ".join(str(folder) for folder in places)
        raise UserError(f"target {target!r}: no file {place} in {where}{_or(place, names) or '.'}")
    return Target(function, path=path.resolve())


def _offered(name: str, group: str) -> Target:
    """The function that an installed package offers under a bare name; nothing is imported."""
    offers = importlib.metadata.entry_points(group=group)
    found = sorted(offers.select(name=name), key=lambda offer: offer.dist.name if offer.dist else "")
    if not found:
        hint = _or(name, offers.names) or "."
        raise UserError(
            f"target {name!r} is neither file.py:function nor package.module:function, and no installed package offers "
            f"it as an entry point of the group {group} (there are: {', '.join(sorted(offers.names)) or 'none'}){hint}"
        )
    if len(found) > 1:
        packages = " and ".join(offer.dist.name if offer.dist else offer.value for offer in found)
        raise UserError(
            f"target {name!r} is offered by the packages {packages}; name the function itself: "
            f"{' or '.join(offer.value for offer in found)}."
        )
    module, _, function = found[0].value.partition(":")
    if not function.isidentifier():
        raise UserError(f"target {name!r}: its entry point is {found[0].value!r}, expected package.module:function.")
    return Target(function, module=module.strip())


def imported_function(path: str, module: str, name: str, root: str) -> Callable[..., Any]:
    """Import a function; meant for a child process, as it changes the search path and runs the user's code.

    Raises:
        Exception: whatever the import raises; AttributeError where there is no such function.
    """
    if module:
        sys.path[:0] = [root, os.getcwd()]
        try:
            source: ModuleType = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            hint = _or(module, modules_near(Path(root), module))
            raise ModuleNotFoundError(f"{error}{hint.rstrip('?')}") from None
    else:
        sys.path.insert(0, os.path.dirname(path))
        spec = importlib.util.spec_from_file_location(_name(path), path)
        assert spec is not None and spec.loader is not None
        source = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = source
        spec.loader.exec_module(source)
    function = getattr(source, name, None)
    if not callable(function):
        found = "has no function" if function is None else f"has a {type(function).__name__}, not a function,"
        near = difflib.get_close_matches(name, [key for key, value in vars(source).items() if callable(value)], n=1)
        raise AttributeError(f"{path or module} {found} {name}" + (f", did you mean {near[0]}" if near else ""))
    return function


def _name(path: str) -> str:
    """What a plug-in file is called as a module: its own name, so that processes that it starts can import it too.

    Another name where its own is taken, as random.py's is.
    """
    stem = Path(path).stem
    try:
        found = importlib.util.find_spec(stem) if stem.isidentifier() else None
    except ValueError:  # a module without specification
        return _MODULE
    same = found is not None and found.origin is not None and os.path.realpath(found.origin) == os.path.realpath(path)
    return stem if same else _MODULE


def modules_near(root: Path, name: str) -> list[str]:
    """Modules beside the recipe and in the working folder that a dotted name may have meant: as deep as it is."""
    pattern = "/".join("*" for _ in name.split("."))
    found: list[str] = []
    for folder in dict.fromkeys([root.resolve(), Path.cwd()]):
        found += [".".join(file.relative_to(folder).with_suffix("").parts) for file in folder.glob(f"{pattern}.py")]
    return sorted(found)


def _or(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def raised(error: BaseException, caller: str) -> str:
    """What a user's function did, with the place in their code: "it raised ValueError: no at /home/me/mine.py:3".

    Args:
        error: what it raised.
        caller: file whose frames are not the user's; this file's are left out as well.
    """
    frames = traceback.extract_tb(error.__traceback__)
    ours = (caller, __file__, importlib.__file__)
    outside = [frame for frame in frames if frame.filename not in ours and not frame.filename.startswith("<")]
    if isinstance(error, SyntaxError):
        place = f" at {error.filename}:{error.lineno}"
    else:
        place = f" at {outside[-1].filename}:{outside[-1].lineno}" if outside else ""
    try:
        message = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())[:300]
    except Exception:
        message = "(its message cannot be had)"
    return f"it raised {type(error).__name__}{': ' if message else ''}{message}{place}"
