"""One name in site-packages: nothing of ours imports, names or runs a module by a bare name such as `rl`."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(link.name for link in (ROOT / "src/gemsmith").iterdir() if link.is_symlink())
SHIPPED = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
OTHERS = [path for name in ("benchmarks", "requirements", "tests") for path in sorted((ROOT / name).rglob("*.py"))]
ENTRY = re.compile(r"(\w+)(\.\w+)+:\w+")


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text())))


def test_the_folders_at_the_root_are_the_packages_by_relative_links():
    exposed = {path.name for path in (ROOT / "src").iterdir()}  # what an editable install puts on the path
    assert {name for name in exposed if not name.endswith(".egg-info")} == {"gemsmith"}
    names = ["contracts", "curation", "evals", "export", "policy", "recipes", "reward_models", "rl", "sandboxes"]
    assert [*names, "weights"] == PACKAGES
    for package in PACKAGES:
        link = ROOT / "src/gemsmith" / package
        assert link.readlink() == Path("../..") / package
        assert (link / "__init__.py").samefile(ROOT / package / "__init__.py")


@pytest.mark.parametrize("files", [SHIPPED, OTHERS], ids=["shipped", "others"])
def test_no_file_imports_by_a_bare_name(files: list[Path]):
    assert len(files) > 100
    bare = []
    for path in files:
        for node in nodes(path):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno}: relative, so it depends on the name of its package"
                names = [node.module or ""]
            bare += [f"{path}:{node.lineno}: {name}" for name in names if name.split(".")[0] in PACKAGES]
    assert bare == []


def strings(path: Path) -> Iterator[str]:
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_entry_is_found_and_loads_no_bare_name(tmp_path: Path):
    entries = {text for path in SHIPPED for text in strings(path) if ENTRY.fullmatch(text)}
    assert [entry for entry in entries if entry.split(".")[0] in PACKAGES] == []
    ours = sorted(entry for entry in entries if entry.startswith("gemsmith."))
    assert len(ours) > 20 and {entry.split(".")[1] for entry in ours} >= {"rl", "evals", "export", "reward_models"}
    for name in PACKAGES:  # a bare import would find these and fail
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('{name} was imported')\n")
    code = (
        "import importlib, sys\n"
        f"for module, _, name in (entry.partition(':') for entry in {ours!r}):\n"
        "    assert callable(getattr(importlib.import_module(module), name)), name\n"
        f"print(sorted(set({PACKAGES!r}) & set(sys.modules)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert (ended.returncode, ended.stdout) == (0, "[]\n"), ended.stderr


def test_every_registered_kind_names_an_entry_among_those_loaded():
    from gemsmith.contracts.stage import StageConfig
    from gemsmith.recipes.schema import recipe
    from gemsmith.rl.algorithms.config import RolloutConfig
    from gemsmith.rl.rewards.config import RewardConfig

    assert recipe
    written = {text for path in SHIPPED for text in strings(path)}
    kinds = [*subclasses(StageConfig), *subclasses(RewardConfig), *subclasses(RolloutConfig)]
    ours = [kind for kind in kinds if kind.__module__.startswith("gemsmith.")]
    named = {getattr(kind, name) for kind in ours for name in ("entry", "algorithm") if hasattr(kind, name)}
    assert len(named) > 15
    assert named <= written  # as a whole string each, so that the test above has loaded it
    assert all(ENTRY.fullmatch(name) for name in named)


def subclasses(kind: type) -> Iterator[type]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


def words_of_commands(path: Path) -> Iterator[tuple[int, list[ast.expr]]]:
    """Yield each list of words that starts an interpreter: with sys.executable in it, or a `-m` or `-c`."""
    for node in nodes(path):
        words = node.elts if isinstance(node, ast.List | ast.Tuple) else node.args if isinstance(node, ast.Call) else []
        flags = any(isinstance(word, ast.Constant) and word.value in ("-m", "-c") for word in words)
        shown = not isinstance(node, ast.Call) and "sys.executable" in [ast.unparse(word) for word in words]
        if flags or shown:
            yield node.lineno, list(words)


def test_no_process_is_started_with_the_working_folder_in_front_of_the_search_path():
    started, exposed = 0, []
    for path in SHIPPED:
        for line, words in words_of_commands(path):
            started += 1
            texts = [word.value for word in words if isinstance(word, ast.Constant)]
            if not {"-P", "-I"} & set(texts):
                exposed.append(f"{path.relative_to(ROOT)}:{line}: {[ast.unparse(word) for word in words]}")
    assert started >= 8
    assert exposed == []


def test_python_m_gemsmith_is_the_command(tmp_path: Path):
    command = [sys.executable, "-m", "gemsmith", "--version"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.fullmatch(r"gemsmith \d+\.\d+\.\d+\n", ended.stdout)
