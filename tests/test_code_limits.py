"""Limits for shipped code: sizes, unique class names, package order, and no torch in configuration."""

import ast
import graphlib
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = [
    "contracts",
    "weights",
    "policy",
    "sandboxes",
    "curation",
    "reward_models",
    "rl",
    "evals",
    "export",
    "recipes",
]
CONFIGS = [path for package in ORDER for path in sorted((ROOT / package).rglob("*config.py"))]
CONFIGS += [ROOT / "recipes/schema/recipe.py"]


def _imported(path: Path) -> set[str]:
    """Top-level packages that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("gemsmith.").split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.removeprefix("gemsmith.").split(".")[0])
    return names


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_from_those_before_it(package: str) -> None:
    modules = list((ROOT / package).rglob("*.py"))
    assert modules
    later = set(ORDER[ORDER.index(package) + 1 :])
    assert {
        str(module.relative_to(ROOT)): _imported(module) & later for module in modules if _imported(module) & later
    } == {}


def _shipped_modules() -> dict[str, Path]:
    """The file of each shipped module, by the module's name; a package is its `__init__`."""
    files = [path for package in ORDER for path in sorted((ROOT / package).rglob("*.py"))]
    names = [".".join(("gemsmith", *path.relative_to(ROOT).with_suffix("").parts)) for path in files]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, files, strict=True)}


def _modules_imported(path: Path, known: set[str]) -> set[str]:
    """Shipped modules that a module imports, at its top or inside a function; imports for type checkers never run."""
    tree, imported = ast.parse(path.read_text()), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                imported |= {f"{node.module}.{alias.name}"} & known or {node.module} & known
    return imported


def test_no_modules_import_each_other_in_a_cycle_not_even_inside_functions() -> None:
    modules = _shipped_modules()
    graph = {name: _modules_imported(path, set(modules)) - {name} for name, path in modules.items()}
    assert len(graph) > 250 and sum(map(len, graph.values())) > 1000
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail("imports in a cycle: " + " <- ".join(error.args[1]))


def test_configuration_imports_no_torch() -> None:
    assert len(CONFIGS) >= 12
    names = [".".join(("gemsmith", *path.relative_to(ROOT).with_suffix("").parts)) for path in CONFIGS]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"


def _shipped() -> list[Path]:
    return [path for package in ORDER for path in sorted((ROOT / package).rglob("*.py"))]


def test_a_class_name_is_used_once() -> None:
    places = defaultdict(list)
    for path in _shipped():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert len(places) > 300
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_files_functions_and_folders_are_small() -> None:
    """That public functions are documented and annotated, ruff (D1) and mypy (disallow_untyped_defs) check."""
    lines = {path: len(path.read_text().splitlines()) for path in _shipped()}
    assert {str(path): count for path, count in lines.items() if count > 450} == {}
    assert statistics.median(lines.values()) <= 130
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": node.end_lineno - node.lineno + 1
        for path in lines
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    }
    assert {name: count for name, count in long.items() if count > 80} == {}
    assert {str(folder): n for folder, n in Counter(path.parent for path in lines).items() if n > 16} == {}
