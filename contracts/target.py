"""The user's own functions that a recipe names: how they are found and imported."""

import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.local import find_local
from gemsmith.contracts.suggestions import did_you_mean

REWARDS = "gemsmith.rewards"
"""Entry point group in which an installed package offers reward functions by a bare name."""
_MODULE = "gemsmith_plugin"


@dataclass(frozen=True)
class Target:
    """A user's function or class that a recipe names, with its options."""

    text: str
    """The name in the recipe."""
    function: str
    file: Path
    """Path of its source file."""
    module: str | None = None
    """Dotted name under which it is imported; None if the file is imported by itself."""
    options: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, root: Path) -> list[str]:
        """Return the arguments of `imported_function` as text, to pass to a child process."""
        return ["" if self.module else str(self.file), self.module or "", self.function, str(root.resolve())]


def find_target(text: str, root: Path, group: str | None = None) -> Target:
    """Find the source of `file.py:function` (beside the recipe, else in the working folder) or `package.module:name`.

    Nothing is imported, not even the packages around a module.

    Args:
        text: the name in the recipe.
        root: the recipe's folder.
        group: entry point group of installed packages, in which a bare name is looked up; None to accept no bare name.

    Raises:
        UserError: the text has another form, or the file, module or entry point does not exist.
    """
    offered = group is not None and ":" not in text and not text.endswith(".py")
    name, colon, function = (_offered(text, group or "") if offered else text).rpartition(":")
    if not colon or not name or not function.isidentifier():
        raise UserError(f'found "{text}", expected file.py:function or package.module:function')
    if name.endswith(".py") or os.sep in name:
        file = find_local(root, name)
        if file is None or not file.is_file():
            places = _folders(root)
            near = [path.name for place in places for path in sorted(place.glob("*.py"))]
            where = " or in ".join(str(place) for place in places)
            raise UserError(
                f"found no file {name} in {where}, expected the file of {function}{did_you_mean(name, near)}"
            )
        return Target(text, function, file.resolve())
    source = _module_source(name, [*map(str, _folders(root)), *sys.path])
    if source is None:
        hint = did_you_mean(name, _modules_near(root, name))
        raise UserError(
            f"found no module {name}, expected a python module that is installed or lies beside the recipe{hint}"
        )
    return Target(text, function, source, name)


def _folders(root: Path) -> list[Path]:
    """Return the folders of the user's own files: the recipe's folder and the working folder."""
    return list(dict.fromkeys([root.resolve(), Path.cwd()]))


def _offered(name: str, group: str) -> str:
    """Return the "package.module:function" that an installed package offers under a bare name; import nothing."""
    offers = importlib.metadata.entry_points(group=group)
    found = sorted(offers.select(name=name), key=lambda offer: offer.dist.name if offer.dist else "")
    if not found:
        raise UserError(
            f'found "{name}", expected file.py:function, package.module:function or an entry point of the group '
            f"{group} (there are: {', '.join(sorted(offers.names)) or 'none'}){did_you_mean(name, offers.names)}"
        )
    if len(found) > 1:
        packages = " and ".join(offer.dist.name if offer.dist else offer.value for offer in found)
        raise UserError(
            f'found "{name}", which the packages {packages} offer; name the function itself: '
            f"{' or '.join(offer.value for offer in found)}"
        )
    module, colon, function = found[0].value.partition(":")
    if not colon or not function.isidentifier():
        raise UserError(f'found "{name}", and its entry point is "{found[0].value}", expected package.module:function')
    return f"{module.strip()}:{function}"


def _module_source(name: str, path: list[str]) -> Path | None:
    """Return the source file of a module; None where there is none."""
    spec, places = None, path
    for part in name.split("."):
        spec = importlib.machinery.PathFinder.find_spec(part, places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _modules_near(root: Path, name: str) -> list[str]:
    """Return the modules of the user's folders that have as many parts as the given dotted name."""
    pattern = "/".join("*" for _ in name.split("."))
    found: list[str] = []
    for folder in _folders(root):
        found += [".".join(file.relative_to(folder).with_suffix("").parts) for file in folder.glob(f"{pattern}.py")]
    return sorted(found)


def imported_function(path: str, module: str, name: str, root: str) -> Callable[..., Any]:
    """Import a function. Call this in a child process: it changes the search path and runs the user's code.

    Raises:
        Exception: any error of the import; AttributeError if the function does not exist.
    """
    if module:
        sys.path[:0] = [root, os.getcwd()]
        source: ModuleType = importlib.import_module(module)
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
        near = did_you_mean(name, [key for key, value in vars(source).items() if callable(value)])
        raise AttributeError(f"{path or module} {found} {name}{near.rstrip('?')}")
    return function


def _name(path: str) -> str:
    """Return the module name of a plug-in file: its own name, so that processes it starts can import it too.

    The name differs if another module already has it, such as for a file random.py.
    """
    stem = Path(path).stem
    try:
        found = importlib.util.find_spec(stem) if stem.isidentifier() else None
    except ValueError:  # a module without specification
        return _MODULE
    same = found is not None and found.origin is not None and os.path.realpath(found.origin) == os.path.realpath(path)
    return stem if same else _MODULE


def raised(error: BaseException, caller: str) -> str:
    """Describe an error in a user's function and its place: "it raised ValueError: no at /home/me/mine.py:3".

    Args:
        error: the error.
        caller: file whose frames are not the user's; the frames of this file are left out as well.
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
