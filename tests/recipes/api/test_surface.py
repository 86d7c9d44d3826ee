"""The names of `import gemsmith`: typed, listed, and loaded without the heavy libraries."""

import ast
import inspect
import subprocess
import sys
import typing
from importlib import import_module
from pathlib import Path

import pytest

import gemsmith
from gemsmith.policy.policy import Policy
from gemsmith.recipes.api.planning import Plan
from gemsmith.recipes.api.results import Run
from gemsmith.sandboxes.verdict import Verdict

HEAVY = {"torch", "transformers", "datasets", "numpy", "trl", "matplotlib", "pydantic", "ruamel", "typer", "rich"}
FUNCTIONS = ["run", "open_run", "validate", "plan", "verify_math", "verify_code"]


def imported(code: str) -> set[str]:
    """Top-level modules in `sys.modules` after some code has run in a fresh interpreter."""
    code += "\nimport sys\nprint(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_gemsmith_imports_nothing_heavy():
    assert imported("import gemsmith; dir(gemsmith); gemsmith.UserError; gemsmith.Verdict") & HEAVY == set()


def test_checking_planning_verifying_and_merging_import_no_torch():
    code = """
import gemsmith
gemsmith.validate("quickstart")
gemsmith.plan("quickstart")
gemsmith.verify_math("7", 7)
gemsmith.merge.average
"""
    found = imported(code)
    assert {"pydantic", "numpy"} <= found
    assert found & {"torch", "transformers", "datasets", "trl", "matplotlib"} == set()


def test_every_name_is_there_and_listed():
    assert dir(gemsmith) == sorted(gemsmith.__all__)
    for name in gemsmith.__all__:
        assert getattr(gemsmith, name) is getattr(gemsmith, name)
    assert gemsmith.merge is import_module("gemsmith.merge")
    assert issubclass(gemsmith.UserError, Exception) and issubclass(gemsmith.RunError, Exception)
    assert gemsmith.Policy is Policy
    with pytest.raises(AttributeError, match="has no attribute 'runn'"):
        gemsmith.runn  # noqa: B018


def test_type_checkers_see_the_names_where_they_are_loaded_from():
    tree = ast.parse(Path(gemsmith.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name != "merge"
    }
    assert seen == {name: f"gemsmith.{home}" for name, home in gemsmith._HOMES.items()}
    assert {*seen, "merge", "__version__"} == set(gemsmith.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_typed_and_documented(name: str):
    function = getattr(gemsmith, name)
    import_module(function.__module__)
    signature = inspect.signature(function)
    assert all(parameter.annotation is not parameter.empty for parameter in signature.parameters.values())
    assert signature.return_annotation is not signature.empty
    for parameter in signature.parameters:
        assert parameter in function.__doc__
    assert "Raises:" in function.__doc__


def test_what_the_functions_return():
    returned = {name: typing.get_type_hints(getattr(gemsmith, name))["return"] for name in FUNCTIONS}
    assert returned == {
        "run": Run,
        "open_run": Run,
        "validate": list[str],
        "plan": Plan,
        "verify_math": Verdict | list[Verdict],
        "verify_code": Verdict | list[Verdict],
    }
    for function in (gemsmith.verify_math, gemsmith.verify_code):
        one, many = map(typing.get_type_hints, typing.get_overloads(function))
        assert (one["completion"], one["return"]) == (str, Verdict)
        assert many["return"] == list[Verdict]
