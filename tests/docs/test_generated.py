"""The generated parts of the documentation say what the schema, the command line and the results say."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def generated() -> Any:
    pytest.importorskip("typer")
    names = ("sphinx", "sphinx.application")
    missing = importlib.util.find_spec("sphinx") is None
    if missing:  # `make docs` installs Sphinx; the tables need none of it
        for name in names:
            sys.modules[name] = ModuleType(name)
        sys.modules["sphinx.application"].Sphinx = object  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs" / "_ext" / "generated.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    if missing:
        for name in names:
            del sys.modules[name]


def test_every_field_of_every_stage_has_a_row_with_its_default_and_range(generated):
    from gemsmith.recipes.schema.recipe import Recipe

    page = generated.recipe_fields()
    schema = Recipe.model_json_schema()
    for name, definition in schema["$defs"].items():
        for key, field in definition.get("properties", {}).items():
            assert "const" in field or f"\n| `{key}` |" in page, (name, key)
    section = page.split("### kind: bond\n")[1].split("\n### ")[0]
    row = next(line for line in section.splitlines() if line.startswith("| `beta` |"))
    assert [cell.strip() for cell in row.split("|")[2:5]] == ["number", "`0.5`", ">= 0, <= 1"]
    assert "| `learning_rate` | number | required | >= 0 |" in section


def test_links_of_the_fields_lead_to_headings(generated):
    page = generated.recipe_fields()
    headings = {generated.anchor(line.lstrip("# ")) for line in page.splitlines() if line.startswith("#")}
    links = {part.split(")")[0] for part in page.split("](#")[1:]}
    assert links <= headings and len(links) > 10


def test_every_command_has_its_options(generated):
    page = generated.commands()
    for heading, option in (
        ("## gemsmith run", "--set"),
        ("## gemsmith plan", "--set"),
        ("### gemsmith merge slerp", "--out"),
    ):
        section = page.split(f"{heading}\n")[1].split("\n## ")[0].split("\n### ")[0]
        assert f"`{option}`" in section, heading


def test_a_result_is_shown_with_machine_time_and_scores(generated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    interval = {"mean": 0.5, "low": 0.25, "high": 0.75}
    policy = {"stage": "sft", "pass_rate": interval, "greedy_pass_rate": interval, "reward": interval, "kl": None}
    content = {
        "recipe": "a", "command": "gemsmith run a", "date": "2026-01-02", "gemsmith": "0.1", "commit": "abc",
        "machine": {"processor": "Chip", "cores": 2, "torch": "2"}, "seconds": 185.2, "peak_memory_bytes": 3 * 2**29,
        "stages": [{"id": "sft", "kind": "sft", "seconds": 12.4}],
        "scores": {"scores": {"prompts": 7, "samples": 3, "policies": [policy]}}, "notes": ["Why."],
        "reward_models": {"warm": [{"model": "member 1", "accuracy": interval, "log_loss": 0.5432,
                                    "calibration_error": None, "length_correlation": -0.25}]},
    }  # fmt: skip
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").write_text(json.dumps(content))
    monkeypatch.setattr(generated, "DOCS", tmp_path)
    page = generated.fill("before\n<!-- generated: results a -->\nafter")
    for fact in (
        "| time | 3 min 05 s |",
        "1.5 GiB",
        "| `sft` | sft | 12 s |",
        "50.0% (25.0 to 75.0)",
        "7 held-out",
        "Why.",
    ):
        assert fact in page, fact
    assert page.startswith("before\n") and page.endswith("\nafter")
    assert "No result" in generated.fill("<!-- generated: results b -->")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_shipped_recipe_has_a_page(recipe: str):
    text = (ROOT / "docs" / "recipes" / f"{recipe}.md").read_text()
    assert f"<!-- generated: results {recipe} -->" in text and f"recipes/{recipe}.yaml" in text
    assert f"({recipe}.md)" in (ROOT / "docs" / "recipes" / "index.md").read_text()


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "results").glob("*.json")), ids=lambda path: path.stem)
def test_a_recorded_result_is_of_a_shipped_recipe_and_its_stages(file: Path):
    from ruamel.yaml import YAML

    content = json.loads(file.read_text())
    recipe = YAML(typ="safe").load(ROOT / "recipes" / f"{content['recipe']}.yaml")
    assert file.stem == content["recipe"]
    assert {stage["id"] for stage in content["stages"]} == {stage["id"] for stage in recipe["stages"]}
