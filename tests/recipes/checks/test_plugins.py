"""Reward functions named in a recipe: read without being imported, and imported where they can do no harm."""

from dataclasses import replace
from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.target import REWARDS, find_target
from gemsmith.recipes.checks.plugins import check_importable, check_signature

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
    ("source", "words"),
    [
        ("def g(prompts, completions, **columns): ...", "no function f in .*mine.py, expected g"),
        ("def f(prompts): ...", "it does not take completions"),
        ("def f(prompt, completion, **columns): ...", 'column prompt; expected .*did you mean "prompts"'),
        ("def f(prompts, completions, lenght, **columns): ...", 'column lenght.*did you mean "length"'),
        ("def f(prompts, completions, /, **columns): ...", "positional-only"),
        ("class f:\n    def __call__(self, prompts): ...", "mine.py:2: found __call__.*does not take completions"),
        ("def f(prompts, completions, **columns:", "mine.py:1: found a syntax error"),
        ("def f(prompts, completions, answer): ...", "does not take the option scale"),
    ],
)
def test_a_wrong_signature_is_told_with_what_it_should_be(tmp_path: Path, source: str, words: str):
    with pytest.raises(UserError, match=words):
        check(written(tmp_path, source), options=("scale",) if "option" in words else ())


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("mien.py:f", 'found no file mien.py .*did you mean "mine.py"'),
        ("mine.py", "expected file.py:function"),
        ("no_such_package.rewards:f", "found no module no_such_package.rewards"),
    ],
)
def test_a_target_that_is_not_there_is_told(tmp_path: Path, target: str, words: str):
    with pytest.raises(UserError, match=words):
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
    with pytest.raises(UserError, match="there are: brevity"):
        find_target("brevty", tmp_path, REWARDS)
    with pytest.raises(UserError, match=r"expected file\.py:function"):
        find_target("brevity", tmp_path)


def test_reading_a_signature_does_not_run_the_file(tmp_path: Path):
    ran = tmp_path / "ran"
    check(written(tmp_path, f"open({str(ran)!r}, 'w')\ndef f(prompts, completions, **columns): ..."))
    assert not ran.exists()


GOOD = "def f(prompts, completions, **columns): ..."


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (f"import no_such_module\n{GOOD}", "line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        (f"{GOOD}\nraise ValueError('at line 2')", "line 2: ValueError: at line 2"),
        (f"import os\nos._exit(7)\n{GOOD}", "ended with code 7"),
        (f"{GOOD}\nf = 3", "no callable f"),
    ],
)
def test_a_file_that_does_not_import_is_told_with_its_reason(tmp_path: Path, source: str, words: str):
    target = find_target("mine.py:f", written(tmp_path, source))
    with pytest.raises(UserError, match=words) as caught:
        check_importable([target], tmp_path)
    assert '"mine.py:f"' in str(caught.value)


def test_an_import_that_never_ends_is_stopped_and_the_right_target_named(tmp_path: Path):
    written(tmp_path, GOOD, "good.py")
    written(tmp_path, f"while True: pass\n{GOOD}")
    targets = [find_target("good.py:f", tmp_path), find_target("mine.py:f", tmp_path)]
    with pytest.raises(UserError, match=r'"mine.py:f": found an import that takes over 1.5 s'):
        check_importable(targets, tmp_path, limit=1.5)


def test_targets_that_import_pass_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    written(tmp_path, "import sibling\nprint('noise')\ndef f(prompts, completions, **columns): ...")
    written(tmp_path, "", "sibling.py")
    check_importable([find_target("mine.py:f", tmp_path)], tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "the class f(length, scale=1) needs the option 'length'"),
        ({"length": 1, "scael": 2}, "no option 'scael' of the class f(length, scale=1), did you mean \"scale\""),
    ],
)
def test_options_are_held_against_a_class_before_any_stage_runs(tmp_path: Path, options: dict[str, int], words: str):
    source = "class f:\n    def __init__(self, length, scale=1): ...\n    def __call__(self, completions, **c): ..."
    target = replace(find_target("mine.py:f", written(tmp_path, source)), options=options)
    with pytest.raises(UserError) as caught:
        check_importable([target], tmp_path)
    assert str(caught.value).startswith('reward target "mine.py:f": ')
    assert words in str(caught.value)
    check_importable([replace(target, options={"length": 1})], tmp_path)


def test_what_only_trl_gives_is_told_when_the_recipe_is_read(tmp_path: Path):
    root = written(tmp_path, "def f(completions, trainer_state, **columns): ...")
    with pytest.raises(UserError, match="TRL's `trainer_state` is not given here"):
        check_signature(find_target("mine.py:f", root), ["answer"], [])


def test_a_module_with_a_slip_in_its_name_is_suggested(tmp_path: Path):
    written(tmp_path, GOOD, "good.py")
    with pytest.raises(UserError, match=r'found no module goood, .*, did you mean "good"'):
        find_target("goood:f", tmp_path)
