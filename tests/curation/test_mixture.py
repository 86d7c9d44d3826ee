"""Several sections as one: shares, sides, tasks and order."""

from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from gemsmith.contracts.errors import UserError
from gemsmith.curation.config import Mixture, MixtureData, PythonData, ReasoningGymData
from gemsmith.curation.example import Example
from gemsmith.curation.load import DataSplit, held_out, load_data, unique_prompts
from gemsmith.curation.mixture import counts, interleaved, mixed

SUMS = ReasoningGymData.model_validate(
    {"source": "reasoning_gym", "task": "chain_sum", "size": 200, "prompt": "{metadata[expression]} =", "holdout": 0.3}
)
WORDS = """
def words(seed, letter, size=60, copies=1):
    for number in range(size):
        for copy in range(copies):
            yield {"prompt": f"{letter}{number}", "length": 2, "copy": str(copy)}
"""


def words(letter: str, holdout: float = 0.25, **options: int) -> PythonData:
    fields = {"source": "python", "target": "words.py:words", "options": {"letter": letter, **options}}
    return PythonData.model_validate({**fields, "columns": ["length"], "demonstration": "{copy}", "holdout": holdout})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "words.py").write_text(WORDS)
    return tmp_path


def mixture(of: dict[str, float], limit: int | None = None, **sections: PythonData | ReasoningGymData) -> Mixture:
    return Mixture(source="mixture", of=of, limit=limit, sections=sections)


def load(root: Path, config: Mixture, seed: int = 0) -> DataSplit:
    return load_data(config, name="all", seed=seed, root=root)


def prompts(*texts: str) -> list[Example]:
    return [Example(prompt=text) for text in texts]


def test_shares_are_of_distinct_prompts_and_the_scarcest_section_sets_the_size():
    # 0.5 of n <= 60, 0.25 of n <= 20, 0.25 of n <= 90: n = 80
    assert counts({"a": 0.5, "b": 0.25, "c": 0.25}, {"a": 60, "b": 20, "c": 90}) == {"a": 40, "b": 20, "c": 20}
    assert counts({"a": 2, "b": 1}, {"a": 60, "b": 60}) == {"a": 60, "b": 30}  # shares are relative
    assert counts({"a": 3, "b": 1}, {"a": 60, "b": 60}, limit=40) == {"a": 30, "b": 10}
    assert counts({"a": 1, "b": 1}, {"a": 60, "b": 0}) == {"a": 60, "b": 0}
    assert counts({"a": 1000, "b": 1}, {"a": 60, "b": 60}) == {"a": 60, "b": 1}  # never none of what is there


def test_rows_keep_their_task_or_get_their_sections_name(root: Path):
    split = load(root, mixture({"sums": 1, "names": 1}, sums=SUMS, names=words("a")))
    tasks = Counter(example.task for example in split.train)
    assert set(tasks) == {"chain_sum", "names"} and tasks["chain_sum"] == tasks["names"]
    assert {example.task for example in split.test} == {"chain_sum", "names"}
    assert {len(example.columns) for example in split.train if example.task == "names"} == {1}
    assert mixture({"sums": 1}, sums=SUMS, names=words("a")).columns == ["length"]


def test_every_section_keeps_its_own_split(root: Path):
    config = mixture({"a": 1, "b": 2}, a=words("a", holdout=0.2), b=words("b", holdout=0.4))
    split = load(root, config, seed=3)
    sides = {"train": split.train, "test": split.test}
    for side, examples in sides.items():
        assert examples
        for example in examples:
            assert held_out(example.prompt, 3, 0.2 if example.task == "a" else 0.4) == (side == "test")


def test_the_same_seed_gives_the_same_rows_whatever_the_order_of_the_sections(root: Path):
    sections = {"a": words("a"), "b": words("b")}
    split = load(root, mixture({"a": 1, "b": 2}, **sections))
    assert load(root, mixture({"b": 2, "a": 1}, **sections)) == split
    assert load(root, mixture({"a": 1, "b": 2}, **sections), seed=1).train != split.train


def test_copies_of_a_prompt_come_along_and_do_not_count(root: Path):
    split = load(root, mixture({"a": 1, "b": 1}, a=words("a", copies=4), b=words("b")))
    kinds = Counter(example.task for example in unique_prompts(split.train))
    assert kinds["a"] == kinds["b"]
    assert Counter(example.task for example in split.train) == {"a": 4 * kinds["a"], "b": kinds["b"]}


def test_a_prompt_that_one_section_holds_out_is_trained_on_in_none():
    config = mixture({"a": 1, "b": 1}, a=SUMS, b=SUMS)
    sides = {"a": (prompts("1", "2"), prompts("3")), "b": (prompts("3", "4"), prompts("5"))}
    train, test, dropped = mixed(config, sides, seed=0, name="all")
    assert "3" not in {example.prompt for example in train}
    assert {example.prompt for example in test} == {"3", "5"}
    assert dropped == {"b: held out by another section": 1, "a: beyond its share": 1}


def test_a_prompt_of_two_sections_is_the_first_ones():
    config = mixture({"b": 1, "a": 1}, a=SUMS, b=SUMS)
    train, _, dropped = mixed(config, {"b": (prompts("x", "y"), []), "a": (prompts("x"), [])}, seed=0, name="all")
    assert {example.prompt: example.task for example in train} == {"x": "a", "y": "b"}
    assert dropped == {"b: prompt of another section": 1}


def test_a_section_without_a_prompt_of_its_own_is_named():
    config = mixture({"a": 1, "b": 1}, a=SUMS, b=SUMS)
    sides = {"a": (prompts("x"), []), "b": (prompts("x", "x"), [])}
    with pytest.raises(UserError, match="data all: `of` names b,"):
        mixed(config, sides, seed=0, name="all")


def test_a_larger_limit_only_adds_prompts(root: Path):
    sections = {"a": words("a"), "b": words("b")}
    few = load(root, mixture({"a": 1, "b": 1}, limit=20, **sections))
    more = load(root, mixture({"a": 1, "b": 1}, limit=40, **sections))
    assert len(few.train) == 20 and len(more.train) == 40
    assert {example.prompt for example in few.train} < {example.prompt for example in more.train}


def test_any_stretch_of_rows_has_about_the_shares():
    sections = {"a": prompts(*map(str, range(300))), "b": prompts(*map(str, range(100)))}
    rows = interleaved({name: [Example(e.prompt, task=name) for e in es] for name, es in sections.items()}, seed=0)
    for start in range(0, 400, 40):
        found = Counter(example.task for example in rows[start : start + 40])
        assert abs(found["b"] - 40 * 0.25) <= 2  # each section's own places are known to within one row at either end
    assert [e.prompt for e in rows if e.task == "b"] == [e.prompt for e in sections["b"]]


@pytest.mark.parametrize("of", [{}, {"a": 0}, {"a": -1}, {"a": float("nan")}, {"a": float("inf")}])
def test_shares_are_positive_numbers(of: dict[str, float]):
    with pytest.raises(ValidationError):
        MixtureData.model_validate({"source": "mixture", "of": of})
