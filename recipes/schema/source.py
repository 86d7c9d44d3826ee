"""A recipe file as it is on disk: its text, the lines of its fields, and the overrides of the command line."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.schema.faults import Faults, Keys, did_you_mean, listed
from gemsmith.recipes.schema.recipe import Recipe
from gemsmith.recipes.schema.translate import add_faults

SHIPPED = Path(__file__).resolve().parents[1]


@dataclass
class Source:
    """A recipe's document, and where each of its fields came from."""

    path: Path
    document: Any
    lines: dict[Keys, int] = field(default_factory=dict)
    overrides: dict[Keys, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """Folder against which the recipe's relative paths resolve first."""
        return self.path.resolve().parent

    def locate(self, keys: Keys) -> str:
        """`file:line: field` for the keys of a field, or `--set field=value: field` where the command line set it."""
        name = self.name(keys)
        for length in range(len(keys), -1, -1):
            if keys[:length] in self.overrides:
                return f"--set {self.overrides[keys[:length]]}: {name}"
            if keys[:length] in self.lines:
                return f"{self.path}:{self.lines[keys[:length]]}: {name}"
        return f"{self.path}: {name}"

    def name(self, keys: Keys) -> str:
        """Keys as `--set` takes them: items of a list by their id where they have one."""
        names, node = [], self.document
        for key in keys:
            node = _child(node, key)
            names.append(node["id"] if isinstance(key, int) and _has_id(node) else str(key))
        return ".".join(names) or "recipe"


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with gemsmith, by name."""
    return {file.stem: file for file in sorted(SHIPPED.glob("*.yaml"))}


def find_recipe(argument: str) -> Path:
    """The file that a command line names: a path, or the name of a shipped recipe.

    Raises:
        UserError: there is neither.
    """
    path = Path(argument)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if argument in shipped:
        return shipped[argument]
    beside = [str(file) for file in sorted(path.parent.glob("*.y*ml"))] if path.parent.is_dir() else []
    hint = did_you_mean(argument, [*beside, *shipped])
    if path.is_dir():
        raise UserError(f"{argument}: found a folder, expected a recipe file{hint}")
    raise UserError(
        f"{argument}: found no such file, expected a recipe file or a shipped recipe ({listed(shipped)}){hint}"
    )


def read_source(path: Path, sets: list[str] | None = None) -> Source:
    """Read a recipe file and apply `key=value` overrides.

    Raises:
        UserError: the file is not YAML, or an override names something that is not there.
    """
    try:
        loaded = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = str(error.problem or error.context)
        if twice := re.match(r'found duplicate key "(.*?)" with value', problem, re.DOTALL):
            problem = f'found the key "{twice[1]}" a second time, expected each key once'
        raise UserError(f"{path}{line}: the file is not YAML: {problem}") from error
    except (YAMLError, UnicodeDecodeError) as error:
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


def read_recipe(source: Source, schema: type[Recipe] = Recipe) -> Recipe:
    """Return the validated recipe of a source; `schema` is `Recipe` or a subclass that knows further kinds of stages.

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
    """The node without ruamel's own types; notes the line of each key and item on the way."""
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
    """Apply one `dotted.key=value`, value in YAML; mappings on the way are made, items of lists must be there."""
    name, equals, text = assignment.partition("=")
    if not equals or not name:
        raise UserError(f"--set {assignment}: expected dotted.key=value, such as stages.sft.steps=10")
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise UserError(
            f"--set {assignment}: the value is not YAML; quote it for YAML as well as for the shell"
        ) from error
    keys: Keys = ()
    node, parts = source.document, name.split(".")
    for depth, part in enumerate(parts):
        key = _key(node, part, assignment, parts[:depth])
        keys = (*keys, key)
        if depth == len(parts) - 1:
            node[key] = value
        elif isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        node = node[key]
    source.overrides[keys] = assignment


def _key(node: Any, part: str, assignment: str, before: list[str]) -> str | int:
    """The key of `node` that a part of a dotted name means."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise UserError(f"--set {assignment}: {'.'.join(before)} is {_kind_of(node)}, which has no field {part}")
    ids = {item["id"]: index for index, item in enumerate(node) if _has_id(item)}
    if part in ids:
        return ids[part]
    if part.isdecimal() and int(part) < len(node):
        return int(part)
    expected = f"one of {listed(ids)}" if ids else f"a number below {len(node)}"
    raise UserError(
        f"--set {assignment}: {'.'.join(before)} has no item {part}, expected {expected}{did_you_mean(part, ids)}"
    )


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
