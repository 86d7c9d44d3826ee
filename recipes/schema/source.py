"""The source of a recipe, a file or a mapping: its document, the lines of its fields, and the overrides."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.planning import Keys
from gemsmith.contracts.suggestions import did_you_mean, listed
from gemsmith.recipes.schema.faults import Faults, dotted
from gemsmith.recipes.schema.limits import MOST_BYTES, MOST_DEPTH, check_text, check_value
from gemsmith.recipes.schema.recipe import Recipe
from gemsmith.recipes.schema.translate import add_faults

MOST_SHOWN = 10_000  # characters of one --set
MOST_LABEL = 200  # characters of it in messages
SHIPPED = Path(__file__).resolve().parents[1]


@dataclass
class Source:
    """A recipe's document, with the origin of each of its fields.

    Attributes:
        path: the recipe's file; None if the recipe is a mapping.
        document: its content as plain mappings, lists, texts, numbers, booleans and None.
        lines: the line of each field in the file.
        overrides: each overridden field with the user's own text for it, such as "--set seed=1".
    """

    path: Path | None
    document: Any
    lines: dict[Keys, int] = field(default_factory=dict)
    overrides: dict[Keys, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """Return the folder where relative paths are looked up first: the file's, or the working folder."""
        return Path.cwd() if self.path is None else self.path.resolve().parent

    def locate(self, keys: Keys) -> str:
        """Return `file:line: field` for the keys of a field, or `--set field=value: field` if an override set it.

        For a recipe that is a mapping, return `recipe: field`.
        """
        name = self.name(keys)
        for length in range(len(keys), -1, -1):
            if keys[:length] in self.overrides:
                return f"{self.overrides[keys[:length]]}: {name}"
            if keys[:length] in self.lines:
                return f"{self.path}:{self.lines[keys[:length]]}: {name}"
        if self.path is None:
            return f"recipe: {name}" if keys else name
        return f"{self.path}: {name}"

    def name(self, keys: Keys) -> str:
        """Return the dotted name that `--set` accepts; list items are named by their id if they have one."""
        names, node = [], self.document
        for key in keys:
            node = _child(node, key)
            names.append(node["id"] if isinstance(key, int) and _has_id(node) else str(key))
        return ".".join(names) or "recipe"


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that come with gemsmith, by name."""
    return {file.stem: file for file in sorted(SHIPPED.glob("*.yaml"))}


def find_recipe(argument: str) -> Path:
    """Return the recipe file for a path or the name of a shipped recipe.

    Raises:
        UserError: there is no such file and no shipped recipe of that name.
    """
    path = Path(argument)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if argument in shipped:
        return shipped[argument]
    siblings = [str(file) for file in sorted(path.parent.glob("*.y*ml"))] if path.parent.is_dir() else []
    hint = did_you_mean(argument, [*siblings, *shipped])
    if path.is_dir():
        raise UserError(f"{argument}: found a folder, expected a recipe file{hint}")
    raise UserError(
        f"{argument}: found no such file, expected a recipe file or a shipped recipe ({listed(shipped)}){hint}"
    )


def read_source(path: Path, sets: list[str] | None = None) -> Source:
    """Read a recipe file and apply `key=value` overrides.

    Raises:
        UserError: the file is not YAML, or an override names an unknown list item or a field inside a plain value.
    """
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise UserError(f"{path}: found {size:,} bytes, expected a recipe of at most {MOST_BYTES:,}")
        text = path.read_text(encoding="utf-8")
        check_text(text, str(path), line=1)
        loaded = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = str(error.problem or error.context)
        if duplicate := re.match(r'found duplicate key "(.*?)" with value', problem, re.DOTALL):
            problem = f'found the key "{duplicate[1]}" a second time, expected each key once'
        raise UserError(f"{path}{line}: the file is not YAML: {problem}") from error
    except (YAMLError, ValueError, TypeError) as error:  # also what YAML's own tags make of a value
        raise UserError(f"{path}: the file is not YAML: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read: {error.strerror}") from error
    source = Source(path, None)
    source.document = _plain(loaded, (), source.lines)
    if not isinstance(source.document, dict):
        raise UserError(f"{path}:1: found {_kind_of(source.document)}, expected a mapping with name, policy and stages")
    for assignment in sets or []:
        _override(source, assignment)
    return source


def read_mapping(recipe: Mapping[str, Any]) -> Source:
    """Read a recipe that is a mapping; the caller's objects are copied.

    Raises:
        UserError: a value has a type that YAML cannot represent.
    """
    source = Source(None, None)
    source.document = _copied(recipe, "recipe", (), [0])
    return source


def override(source: Source, values: Mapping[str, Any]) -> None:
    """Set fields of the document by their dotted names; missing mappings are created, list items must exist.

    Raises:
        UserError: a name does not exist in the document, or a value has a type that YAML cannot represent.
    """
    for name, value in values.items():
        label = f"set={{{name!r}: {repr(value) if value is None or isinstance(value, str | int | float) else '...'}}}"
        if not isinstance(name, str) or not name:
            raise UserError(f"{label}: expected the dotted name of a field, such as stages.sft.steps")
        _assign(source, name, _copied(value, label, (), [0]), label)


def read_recipe(source: Source, schema: type[Recipe] = Recipe) -> Recipe:
    """Return the validated recipe of a source; `schema` is `Recipe` or a subclass with more kinds of stages.

    Raises:
        UserError: one line for each fault, with file, line, field, what was found and what was expected.
    """
    try:
        return schema.model_validate(source.document, strict=True)
    except ValidationError as error:
        faults = Faults(source.locate)
        add_faults(faults, schema, error, source.document)
        faults.raise_if_any()
        raise


def _plain(node: Any, keys: Keys, lines: dict[Keys, int]) -> Any:
    """Convert a node to plain Python types, and add the line of each key and item to `lines`."""
    if isinstance(node, CommentedMap):
        for key in node:
            mark = node.lc.data.get(key) if node.lc.data else None
            if mark is not None:
                lines[(*keys, key)] = mark[0] + 1
        return {key: _plain(value, (*keys, key), lines) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            mark = node.lc.data.get(index) if node.lc.data else None
            if mark is not None:
                lines[(*keys, index)] = mark[0] + 1
        return [_plain(value, (*keys, index), lines) for index, value in enumerate(node)]
    if isinstance(node, bool) or node is None:
        return node
    for plain in (int, float, str):
        if isinstance(node, plain):
            return plain(node)
    if type(node).__name__ == "ScalarBoolean":
        return bool(node)
    return node


def _override(source: Source, assignment: str) -> None:
    """Apply one `dotted.key=value`; the value is YAML."""
    label = f"--set {assignment if len(assignment) <= MOST_LABEL else assignment[:MOST_LABEL] + '...'}"
    if len(assignment) > MOST_SHOWN:
        raise UserError(f"{label}: found {len(assignment):,} characters, expected at most {MOST_SHOWN:,}")
    name, equals, text = assignment.partition("=")
    if not equals or not name:
        raise UserError(f"{label}: expected dotted.key=value, such as stages.sft.steps=10")
    try:
        check_text(text, label)
        value = _plain(YAML(typ="safe", pure=True).load(text), (), {})
    except (YAMLError, ValueError, TypeError) as error:
        raise UserError(f"{label}: the value is not YAML; quote it for YAML as well as for the shell") from error
    _assign(source, name, value, label)


def _assign(source: Source, name: str, value: Any, label: str) -> None:
    """Set the field with a dotted name; `label` is the user's own text, for messages."""
    keys: Keys = ()
    node, parts = source.document, name.split(".")
    if len(parts) > MOST_DEPTH:
        raise UserError(f"{label}: found a name of {len(parts)} parts, expected at most {MOST_DEPTH}")
    for depth, part in enumerate(parts):
        key = _key(node, part, label, parts[:depth])
        keys = (*keys, key)
        if depth == len(parts) - 1:
            node[key] = value
        elif isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        node = node[key]
    source.overrides[keys] = label


def _copied(value: Any, label: str, keys: Keys, seen: list[int]) -> Any:
    """Convert a Python value to what YAML would give: tuples to lists, paths to text, NumPy numbers to plain ones.

    `seen` counts the values; see `limits.check_value`.
    """
    check_value(value, label, keys, seen)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise UserError(f"{label}: found the key {key!r}{_below(keys)}, expected text as every key")
        return {str(key): _copied(item, label, (*keys, key), seen) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item, label, (*keys, index), seen) for index, item in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | PurePath):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if callable(value):
        name = getattr(value, "__name__", type(value).__name__)
        raise UserError(
            f"{label}: found the function {name}{_below(keys)}, expected its location as text, such as "
            f'"my_file.py:{name}"'
        )
    raise UserError(
        f"{label}: found an object of type {type(value).__name__}{_below(keys)}, expected a type that YAML can "
        "represent: mapping, list, text, number, True, False or None"
    )


def _below(keys: Keys) -> str:
    return f" at {dotted(keys)}" if keys else ""


def _key(node: Any, part: str, label: str, before: list[str]) -> str | int:
    """Return the key of `node` for one part of a dotted name: a field's name, or an item's id or number."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise UserError(f"{label}: {'.'.join(before)} is {_kind_of(node)}, which has no field {part}")
    ids = {item["id"]: index for index, item in enumerate(node) if _has_id(item)}
    if part in ids:
        return ids[part]
    if part.isdecimal() and int(part) < len(node):
        return int(part)
    expected = f"one of {listed(ids)}" if ids else f"a number below {len(node)}"
    raise UserError(f"{label}: {'.'.join(before)} has no item {part}, expected {expected}{did_you_mean(part, ids)}")


def _child(node: Any, key: str | int) -> Any:
    if isinstance(node, dict):
        return node.get(key)
    return node[key] if isinstance(node, list) and isinstance(key, int) and key < len(node) else None


def _has_id(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("id"), str)


def _kind_of(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return f'the text "{value}"' if isinstance(value, str) else repr(value)
