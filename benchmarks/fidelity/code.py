"""The identity of a measurement: its settings, its seed, and the code that it runs.

The code of a claim is its own file and every module of ours that it imports, transitively and wherever the import
stands, and those that `Claim.names` adds. Comments, layout and docstrings do not count; neither do the functions
`judge` and `draw` of the claim's file and what it takes from the modules below, so that a verdict or a figure can be
mended without measuring again.
"""

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WITHOUT_EFFECT = {f"benchmarks.fidelity.{name}" for name in ("claim", "curves", "figure")}  # after the measurement
NOT_MEASURED = {"judge", "draw", "CLAIM"}
EMPTY = ast.Expr(ast.Constant(None))


def identity(modules: Sequence[str], setting: Mapping[str, Any], seed: int, root: Path = ROOT) -> str:
    """64 hexadecimal digits that change when the setting, the seed or the code that the modules come to does."""
    content = {"setting": setting, "seed": seed, "code": code_of(modules, root)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def code_of(modules: Sequence[str], root: Path = ROOT) -> dict[str, str]:
    """Return the hash of each module that the given ones import, directly or not, by its name."""
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _file_of(name, root)
        if name in found or name in WITHOUT_EFFECT or path is None:
            continue
        found[name], imported = _read(path.read_text(), ".claims." in name)
        waiting += imported
    return found


def _file_of(name: str, root: Path) -> Path | None:
    path = root.joinpath(*name.removeprefix("gemsmith.").split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


@cache
def _read(source: str, claim: bool) -> tuple[str, tuple[str, ...]]:
    """Return the hash of a file's code and the names that it imports, including names that are not ours or not
    modules.
    """
    tree = ast.parse(source)
    if claim:
        tree.body = [node for node in tree.body if not _names_of(node) & NOT_MEASURED]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0] = EMPTY
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return digest, tuple(name for node in ast.walk(tree) for name in _imports_of(node))


def _names_of(node: ast.stmt) -> set[str]:
    """Return the names that a statement at the top of a file defines."""
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _imports_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
