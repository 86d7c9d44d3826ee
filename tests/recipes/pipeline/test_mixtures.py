"""Mixtures in recipes: their sections are put in, faults have a place, and identities cover what they are made of."""

from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.curation.config import Mixture
from gemsmith.recipes.pipeline.pipeline import Pipeline, open_recipe
from tests.messages import raises_facts

RECIPE = """\
name: trial
policy: {model: tiny}
data:
  sums: {source: reasoning_gym, task: chain_sum, size: 40}
  rows: {source: jsonl, path: rows.jsonl, demonstration: "{answer}", columns: [level]}
  all: {source: mixture, of: {sums: 0.5, rows: 0.5}}
rewards:
  right: {kind: math, clip: [-1, 1]}
stages:
  - {id: sft, kind: sft, data: all, steps: 1, batch: 1, learning_rate: 0.1}
  - {id: scores, kind: evaluate, policies: [sft], data: all, rewards: [right], passes: [right]}
"""


def opened(folder: Path, *change: str) -> Pipeline:
    (folder / "trial.yaml").write_text(RECIPE.replace(*change) if change else RECIPE)
    if not (folder / "rows.jsonl").exists():
        (folder / "rows.jsonl").write_text('{"prompt": "a", "answer": "b", "level": 1}\n')
    return open_recipe(str(folder / "trial.yaml"))


def test_a_stage_is_given_a_mixture_with_its_sections(tmp_path: Path):
    mixture = opened(tmp_path).data["all"]
    assert isinstance(mixture, Mixture)
    assert list(mixture.sections) == ["sums", "rows"] and mixture.columns == ["level"]


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (("of: {sums: 0.5, rows", "of: {sums: 0.5, row"), ("data.all.of.row", '"row"', '"rows"')),
        (("rows: 0.5}}", "all: 0.5}}"), ("data.all.of.all", '"all"', "mixture")),
        (("rows: 0.5}}", "rows: 0}}"), ("data.all.of.rows",)),
        (("passes: [right]", "passes: [right, wrong]"), ("scores", "wrong")),
        (("of: {", "holdout: 0.2, of: {"), ("data.all.holdout",)),
        (("clip: [-1, 1]", "tasks: [chain_sum]"), ("data.all", '"rows"')),
        (("clip: [-1, 1]", "tasks: [rows, chain_sun]"), ("rewards", '"chain_sun"', '"chain_sum"')),
    ],
)
def test_a_fault_names_section_and_field(tmp_path: Path, change: tuple[str, str], facts: tuple[str, ...]):
    with raises_facts(UserError, "trial.yaml:", *facts):
        opened(tmp_path, *change)


def test_what_changes_in_a_section_changes_the_stages_that_mix_it(tmp_path: Path):
    before = opened(tmp_path).identities["sft"]
    assert opened(tmp_path, "chain_sum", "products").identities["sft"] != before
    assert opened(tmp_path, "sums: 0.5,", "sums: 0.6,").identities["sft"] != before
    assert opened(tmp_path).identities["sft"] == before
    (tmp_path / "rows.jsonl").write_text('{"prompt": "c", "answer": "d", "level": 1}\n')
    assert opened(tmp_path).identities["sft"] != before
