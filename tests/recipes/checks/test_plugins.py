"""Reward functions named in a recipe: read without being imported, and imported where they can do no harm."""

from dataclasses import replace
from pathlib import Path

import pytest

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.target import REWARDS, find_target
from gemsmith.recipes.checks.plugins import check_importable, check_signature
from tests.messages import assert_facts, raises_facts

COLUMNS = ("answer", "task", "system", "length")


def written(folder: Path, source: str, name: str = "mine.py") -> Path:
    (folder / name).write_text(source)
    return folder


def check(folder: Path, target: str = "mine.py:f", options: tuple[str, ...] = ()) -> None:
    check_signature(find_target(target, folder), COLUMNS, options)


@pytest.mark.parametrize(
    "source",
    [
        "def f(prompts, completions, **columns): ...",
        "def f(completions): ...",
        "class f:\n    def __init__(self, scale): ...\n    def __call__(self, completions, answer): ...",
        "class f(Base): ...",
        "async def f(completions, prompts, **kwargs): ...",
        "def f(prompts, completions, answer, length=3, **rest): ...",
        "def f(prompts, completions, *, answer, **rest): ...",
        "def f(**everything): ...",
        "def f(prompts, completions, answer): ...",
        "def f(prompts, completions, scale, **columns): ...",
        "from other import f",
        "if True:\n    def f(prompts, completions, **columns): ...",
        "f = lambda prompts, completions, **columns: []",
    ],
)
def test_a_function_that_takes_what_it_is_given_is_good(tmp_path: Path, source: str):
    check(written(tmp_path, source), options=("scale",) if "scale" in source else ())


@pytest.mark.parametrize(
    ("source", "facts"),
    [
        ("def g(prompts, completions, **columns): ...", ("function f", "mine.py", "g")),
        ("def f(prompts): ...", ("mine.py:1", "f(prompts)", "f(prompts, completions, **columns)")),
        ("def f(prompt, completion, **columns): ...", ("column prompt", '"prompts"')),
        ("def f(prompts, completions, lenght, **columns): ...", ("column lenght", '"length"')),
        ("def f(prompts, completions, /, **columns): ...", ("mine.py:1", "positional-only")),
        ("class f:\n    def __call__(self, prompts): ...", ("mine.py:2", "__call__(prompts)", "completions")),
        ("def f(prompts, completions, **columns:", ("mine.py:1", "syntax error")),
        ("def f(prompts, completions, answer): ...", ("f(prompts, completions, answer)", "option scale")),
    ],
)
def test_a_wrong_signature_is_told_with_what_it_should_be(tmp_path: Path, source: str, facts: tuple[str, ...]):
    with raises_facts(UserError, *facts):
        check(written(tmp_path, source), options=("scale",) if "option scale" in facts else ())


@pytest.mark.parametrize(
    ("target", "facts"),
    [
        ("mien.py:f", ("mien.py", '"mine.py"')),
        ("mine.py", ("mine.py", "file.py:function")),
        ("no_such_package.rewards:f", ("module", "no_such_package.rewards")),
    ],
)
def test_a_target_that_is_not_there_is_told(tmp_path: Path, target: str, facts: tuple[str, ...]):
    with raises_facts(UserError, *facts):
        check(written(tmp_path, "def f(prompts, completions, **columns): ..."), target)


def test_a_module_is_found_beside_the_recipe_without_being_imported(tmp_path: Path):
    package = tmp_path / "mypackage"
    package.mkdir()
    written(package, "raise SystemExit('imported')", "__init__.py")
    written(package, "def f(prompts, completions, **columns): ...", "rewards.py")
    check(tmp_path, "mypackage.rewards:f")


def test_a_bare_name_is_found_where_its_package_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written(tmp_path, "def f(prompts, completions, **columns): ...")
    metadata = tmp_path / "mine-1.0.dist-info"
    metadata.mkdir()
    written(metadata, "Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n", "METADATA")
    written(metadata, "[gemsmith.rewards]\nbrevity = mine:f\n", "entry_points.txt")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_target("brevity", tmp_path, REWARDS).file == tmp_path / "mine.py"
    with raises_facts(UserError, "brevty", "gemsmith.rewards", "brevity"):
        find_target("brevty", tmp_path, REWARDS)
    with raises_facts(UserError, "brevity", "file.py:function"):
        find_target("brevity", tmp_path)


def test_reading_a_signature_does_not_run_the_file(tmp_path: Path):
    ran = tmp_path / "ran"
    check(written(tmp_path, f"open({str(ran)!r}, 'w')\ndef f(prompts, completions, **columns): ..."))
    assert not ran.exists()


GOOD = "def f(prompts, completions, **columns): ..."


@pytest.mark.parametrize(
    ("source", "facts"),
    [
        (f"import no_such_module\n{GOOD}", ("line 1", "ModuleNotFoundError", "'no_such_module'")),
        (f"{GOOD}\nraise ValueError('at line 2')", ("line 2", "ValueError", "at line 2")),
        (f"import os\nos._exit(7)\n{GOOD}", ("code 7",)),
        (f"{GOOD}\nf = 3", ("AttributeError", "f")),
    ],
)
def test_a_file_that_does_not_import_is_told_with_its_reason(tmp_path: Path, source: str, facts: tuple[str, ...]):
    target = find_target("mine.py:f", written(tmp_path, source))
    with raises_facts(UserError, '"mine.py:f"', *facts):
        check_importable([target], tmp_path)


def test_an_import_that_never_ends_is_stopped_and_the_right_target_named(tmp_path: Path):
    written(tmp_path, GOOD, "good.py")
    written(tmp_path, f"while True: pass\n{GOOD}")
    targets = [find_target("good.py:f", tmp_path), find_target("mine.py:f", tmp_path)]
    with raises_facts(UserError, '"mine.py:f"', "import", "1.5 s"):
        check_importable(targets, tmp_path, limit=1.5)


def test_targets_that_import_pass_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    written(tmp_path, "import sibling\nprint('noise')\ndef f(prompts, completions, **columns): ...")
    written(tmp_path, "", "sibling.py")
    check_importable([find_target("mine.py:f", tmp_path)], tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({}, ("f(length, scale=1)", "'length'")),
        ({"length": 1, "scael": 2}, ("f(length, scale=1)", "'scael'", '"scale"')),
    ],
)
def test_options_are_held_against_a_class_before_any_stage_runs(
    tmp_path: Path, options: dict[str, int], facts: tuple[str, ...]
):
    source = "class f:\n    def __init__(self, length, scale=1): ...\n    def __call__(self, completions, **c): ..."
    target = replace(find_target("mine.py:f", written(tmp_path, source)), options=options)
    with pytest.raises(UserError) as caught:
        check_importable([target], tmp_path)
    assert str(caught.value).startswith('reward target "mine.py:f": ')
    assert_facts(caught.value, *facts)
    check_importable([replace(target, options={"length": 1})], tmp_path)


def test_what_only_trl_gives_is_told_when_the_recipe_is_read(tmp_path: Path):
    root = written(tmp_path, "def f(completions, trainer_state, **columns): ...")
    with raises_facts(UserError, "mine.py:1", "TRL", "`trainer_state`"):
        check_signature(find_target("mine.py:f", root), ["answer"], [])


def test_a_module_with_a_slip_in_its_name_is_suggested(tmp_path: Path):
    written(tmp_path, GOOD, "good.py")
    with raises_facts(UserError, "module", "goood", '"good"'):
        find_target("goood:f", tmp_path)


def test_a_process_that_a_signal_ends_during_the_import_is_a_fault_of_the_machine(tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\ndef f(completions): ...\n"
    )
    with raises_facts(RunError, 'reward target "mine.py:f"', "killed by SIGKILL", "MiB"):
        check_importable([find_target("mine.py:f", tmp_path)], tmp_path)
