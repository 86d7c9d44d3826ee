"""Recipes that ask for too much end with one sentence, within a second."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

import gemsmith
from gemsmith.contracts.errors import UserError
from gemsmith.recipes.pipeline.pipeline import open_recipe
from gemsmith.recipes.schema.limits import check_text
from tests.messages import assert_facts, raises_facts

GOOD = """\
name: small
policy: {model: tiny}
data:
  sums: {source: reasoning_gym, task: chain_sum, size: 50, synthesise: {right: 0.5}}
stages:
  - {id: sft, kind: sft, data: sums, steps: 2, batch: 4, learning_rate: 1.0e-3}
"""
LAUGH = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


def message(folder: Path, text: str, *sets: str) -> str:
    """Return the message about a recipe, and check that it is one line and comes within a second."""
    path = folder / "hostile.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    begun = time.monotonic()
    with pytest.raises(UserError) as caught:
        open_recipe(str(path), sets)
    assert time.monotonic() - begun < 1
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (LAUGH + GOOD, ["hostile.yaml:5", "20,000 values", "aliases"]),
        ("a: &a\n  <<: *a\n" + GOOD, ["hostile.yaml:2", "*a"]),
        ("a: &a {b: [*a]}\n" + GOOD, ["hostile.yaml:1", "*a"]),
        (f"deep: {'[' * 900}{']' * 900}\n" + GOOD, ["hostile.yaml:1", "32 nested"]),
        (f"deep: {'{a: ' * 40}1{'}' * 40}\n" + GOOD, ["hostile.yaml:1", "32 nested"]),
        (GOOD.replace("steps: 2", f"steps: {'9' * 5000}"), ["hostile.yaml:6", "5,000 digits", "18"]),
        (GOOD.replace("steps: 2", f"steps: 0x{'f' * 40}"), ["hostile.yaml:6", "digits", "18"]),
        (GOOD.replace("steps: 2", f"steps: {'1_' * 40}1"), ["hostile.yaml:6", "41 digits"]),
        (GOOD + f"seed: {'9' * 40}\n", ["hostile.yaml:7", "40 digits"]),
        (GOOD + f"seed: {2**32}\n", ["seed", 2**32]),
        (GOOD.replace("size: 50", "size: 999999999999"), ["data.sums.size", "999999999999", "10000000"]),
        (GOOD.replace("id: sft", f"id: {'a' * 300}"), ["id", "at most 100"]),
        (GOOD.replace("name: small", f"name: {'a' * 300}"), ["name", "at most 100"]),
        (f"{'k' * 300}: 1\n" + GOOD, ["hostile.yaml:1", "300 characters", "200"]),
        (f'"{"k" * 300}": 1\n' + GOOD, ["hostile.yaml:1", "300 characters"]),
        ("# " + "x" * 2_000_000 + "\n" + GOOD, ["2,000,", "200,000"]),
        ("- x\n" * 40_000, ["20,000 values"]),
        (GOOD.replace("1.0e-3", "1e999"), ["learning_rate", "finite"]),
        (GOOD.replace("1.0e-3", ".nan"), ["learning_rate", "nan"]),
        (GOOD + "seed: !!binary aGk=\n", ["hostile.yaml"]),
        (GOOD + "seed: !!int x\n", ["hostile.yaml"]),
        (GOOD + "seed: !!python/object:os.system x\n", ["hostile.yaml", "seed"]),
        (GOOD + "seed: 1\nseed: 2\n", ["hostile.yaml:8", "seed"]),
        (GOOD + "\tseed: 1\n", ["hostile.yaml"]),
        (GOOD + "description: a\0b\n", ["hostile.yaml", "x0000"]),
        (GOOD + "description: \ud800\n", ["hostile.yaml"]),
        ("? [a, b]\n: 1\n" + GOOD, ["hostile.yaml"]),
        ("2024-01-01: 1\n" + GOOD, ["hostile.yaml"]),
        ("", ["hostile.yaml"]),
        ("--- {}\n--- {}\n", ["hostile.yaml"]),
    ],
)  # fmt: skip
def test_a_recipe_that_asks_for_too_much_ends_with_one_sentence(tmp_path: Path, text: str, facts: list[Any]) -> None:
    assert_facts(message(tmp_path, text), *facts)


@pytest.mark.parametrize(
    ("assignment", "facts"),
    [
        (f"seed={'9' * 40}", ["40 digits"]),
        (f"description={'[' * 900}", ["32 nested"]),
        ("description=" + "x" * 20_000, ["20,012 characters", "10,000"]),
        ("seed=&a [*a]", ["*a"]),
        (".".join(["a"] * 2000) + "=1", ["2000 parts"]),
    ],
)
def test_an_override_that_asks_for_too_much_ends_with_one_sentence(
    tmp_path: Path, assignment: str, facts: list[Any]
) -> None:
    assert_facts(message(tmp_path, GOOD, assignment), "--set", *facts)


def test_a_recipe_that_is_a_mapping_has_the_same_limits() -> None:
    deep: dict[str, Any] = {}
    deep["a"] = deep
    for recipe, facts in (
        (deep, ["32 nested"]),
        ({"x": [[0] * 400] * 400}, ["20,000 values"]),
        ({"k" * 300: 1}, ["300 characters"]),
        ({"seed": 10**40}, ["18 digits"]),
    ):
        with raises_facts(UserError, *facts):
            gemsmith.validate(recipe)


def test_aliases_within_the_limits_are_read(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(GOOD.replace("{id: sft, kind", "&one {id: sft, kind").replace("size: 50", "size: &n 50, limit: *n"))
    assert open_recipe(str(path)).data["sums"].limit == 50


def test_numbers_of_18_digits_and_texts_of_digits_are_accepted() -> None:
    check_text(json.dumps({"a": 10**18 - 1, "b": "9" * 40}), "x")
    with raises_facts(UserError, "19 digits"):
        check_text(json.dumps({"a": 10**18}), "x")
