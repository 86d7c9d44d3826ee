import ast
from pathlib import Path

import pytest

from gemsmith.contracts.suggestions import did_you_mean

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("stepz", ', did you mean "steps"?'),
        ("Stepz", ', did you mean "steps"?'),
        ("MODEL", ', did you mean "Model"?'),
        (7, ""),
        ("zzz", ""),
        ("steps" + 100_000 * "z", ""),
    ],
)
def test_the_nearest_name_is_suggested_in_its_own_spelling(name: object, hint: str):
    assert did_you_mean(name, iter(["Model", "steps", "batch"])) == hint


def test_the_name_of_another_library_suggests_the_field_that_means_the_same():
    assert did_you_mean("lr", ["lora", "learning_rate"]) == ', did you mean "learning_rate"?'
    assert did_you_mean("lr", ["lora"]) == ', did you mean "lora"?'


def test_a_name_is_near_from_the_likeness_on_that_is_asked_for():
    # difflib's ratio: twice the three letters in common, over nine letters of both
    assert did_you_mean("abcx", ["abcde"], likeness=0.66) == ', did you mean "abcde"?'
    assert did_you_mean("abcx", ["abcde"], likeness=0.67) == ""


def test_no_other_module_words_a_suggestion_of_its_own():
    packages = [path.parent for path in (ROOT / "src/gemsmith").glob("*/__init__.py")]
    texts = {
        str(file.relative_to(package.parent)): node.value
        for package in packages
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and ", did you mean" in node.value
    }
    own = [name for name, text in texts.items() if not text.startswith("Return a message such as")]  # an example
    assert own == ["contracts/suggestions.py"]
