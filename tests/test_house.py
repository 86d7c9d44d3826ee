"""The order of the house: a package imports only from those before it, and configuration imports no torch."""

import ast
import subprocess
import sys
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
CONFIGS = [path for package in ORDER for path in sorted((ROOT / package).rglob("config.py"))]
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


def test_configuration_imports_no_torch() -> None:
    assert len(CONFIGS) >= 12
    names = [".".join(("gemsmith", *path.relative_to(ROOT).with_suffix("").parts)) for path in CONFIGS]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"
