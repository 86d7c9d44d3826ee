"""A stage's identity changes when something that it depends on changes, and only then."""

import os
from pathlib import Path

import pytest
from counting_stage import CountStage, pipeline_of

from gemsmith.recipes.pipeline import identity
from gemsmith.recipes.pipeline.files import former_fingerprint
from gemsmith.recipes.pipeline.identity import Settings
from gemsmith.recipes.pipeline.identity import identities as identities_of
from gemsmith.recipes.pipeline.pipeline import open_recipe

RECIPE = """\
name: sums
description: what it is for
policy: {model: tiny}
data:
  sums: {source: reasoning_gym, task: chain_sum, size: 100}
  rows: {source: jsonl, path: rows.jsonl}
rewards:
  correct: {kind: math}
  brief: {kind: python, target: "brief.py:brief", time_limit: 5}
  unused: {kind: math, weight: 2}
stages:
  - {id: sft, kind: sft, data: sums, steps: 4, batch: 8, learning_rate: 1e-3}
  - {id: rl, kind: bond, policy: {from: sft}, data: rows, rewards: [correct, brief], steps: 4, batch: 8,
     learning_rate: 1e-3}
  - {id: other, kind: sft, data: rows, steps: 4, batch: 8, learning_rate: 1e-3}
"""
ALL = {"sft", "rl", "other"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sums.yaml").write_text(RECIPE)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1 + 1 ="}\n')
    (tmp_path / "brief.py").write_text(
        "def brief(prompts, completions, **columns):\n    return [0.0 for _ in completions]\n"
    )
    return tmp_path


def identities(folder: Path, *sets: str) -> dict[str, str]:
    return open_recipe(str(folder / "sums.yaml"), sets).identities


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("assignment", "stages"),
    [
        ("name=other", set()),
        ("description=other", set()),
        ("stages.sft.save_every=3", set()),
        ("stages.sft.log_every=3", set()),
        ("engine.report_to=[wandb]", set()),
        ("rewards.unused.weight=3", set()),
        ("rewards.brief.time_limit=9", set()),
        ("seed=1", ALL),
        ("engine.deepspeed.zero=2", ALL),
        ("policy.size=large", ALL),  # rl builds on sft
        ("stages.sft.steps=5", {"sft", "rl"}),
        ("stages.sft.keep_steps=[2]", {"sft", "rl"}),
        ("stages.rl.beta=0.25", {"rl"}),
        ("stages.other.steps=5", {"other"}),
        ("data.sums.size=101", {"sft", "rl"}),
        ("data.rows.holdout=0.2", {"rl", "other"}),
        ("rewards.correct.weight=2", {"rl"}),
        ("rewards.brief.options.scale=2", {"rl"}),
    ],
)
def test_a_setting_changes_the_stages_that_depend_on_it_and_no_other(folder: Path, assignment: str, stages: set[str]):
    (folder / "brief.py").write_text("def brief(prompts, completions, scale=1, **columns):\n    return [0.0]\n")
    assert changed(identities(folder), identities(folder, assignment)) == stages


def test_how_many_members_are_trained_at_once_does_not_count(folder: Path):
    warm = "{id: warm, kind: warm, data: sums, steps: 4, batch: 8, learning_rate: 1e-3, parallel: %d}"
    one, two = (identities(folder, f"stages=[{warm % parallel}]") for parallel in (1, 2))
    assert one == two


def test_the_content_of_files_counts_and_their_age_does_not(folder: Path):
    before = identities(folder)
    (folder / "rows.jsonl").touch()
    assert changed(before, identities(folder)) == set()
    (folder / "rows.jsonl").write_text('{"prompt": "1 + 2 ="}\n')
    assert changed(before, identities(folder)) == {"rl", "other"}


def test_the_source_of_a_reward_function_counts(folder: Path):
    before = identities(folder)
    (folder / "brief.py").write_text(
        "def brief(prompts, completions, **columns):\n    return [1.0 for _ in completions]\n"
    )
    assert changed(before, identities(folder)) == {"rl"}


def test_the_source_of_a_data_function_counts(folder: Path):
    sets = ("data.rows={source: python, target: 'made.py:rows'}",)
    (folder / "made.py").write_text("def rows(): return [{'prompt': '1'}]\n")
    before = identities(folder, *sets)
    (folder / "made.py").write_text("def rows(): return [{'prompt': '2'}]\n")
    assert changed(before, identities(folder, *sets)) == {"rl", "other"}


def model_folder(folder: Path) -> Path:
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"12")
    return model


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "generation_config.json", "new.safetensors"])
def test_a_model_folder_counts_by_the_content_of_every_file(folder: Path, name: str):
    model = model_folder(folder)
    before = identities(folder, "policy.model=./model")
    (model / "model.safetensors").touch()
    (model / ".cache").mkdir()
    (model / ".cache" / "when").write_text("just now")
    assert identities(folder, "policy.model=./model") == before
    weights = (model / "model.safetensors").stat()
    (model / name).write_bytes(b"34")
    os.utime(model / name, ns=(weights.st_atime_ns, weights.st_mtime_ns))
    assert changed(before, identities(folder, "policy.model=./model")) == ALL


def test_a_gguf_file_counts_by_its_content(folder: Path):
    (folder / "model.gguf").write_bytes(b"12")
    before, stat = identities(folder, "policy.model=./model.gguf"), (folder / "model.gguf").stat()
    (folder / "model.gguf").write_bytes(b"34")
    os.utime(folder / "model.gguf", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert changed(before, identities(folder, "policy.model=./model.gguf")) == ALL


@pytest.mark.parametrize("source", ["hub", "mixture"])
def test_a_data_set_in_a_folder_counts_by_the_content_of_its_files(folder: Path, source: str):
    sets = ["data.rows={source: hub, name: table}"]
    if source == "mixture":
        sets = ["data.table={source: hub, name: table}", "data.rows={source: mixture, of: {table: 1, sums: 1}}"]
    (folder / "table" / "data").mkdir(parents=True)
    path = folder / "table" / "data" / "train.parquet"
    path.write_bytes(b"12")
    before, stat = identities(folder, *sets), path.stat()
    path.write_bytes(b"34")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert changed(before, identities(folder, *sets)) == {"rl", "other"}


def test_a_stage_that_an_older_version_began_with_a_model_folder_keeps_its_identity(folder: Path):
    model_folder(folder)
    pipeline = open_recipe(str(folder / "sums.yaml"), ["policy.model=./model"])
    settings = Settings(pipeline.nodes, pipeline.data, pipeline.rewards, pipeline.engine, pipeline.seed, pipeline.root)
    by_content = pipeline.identities
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "content_digest", former_fingerprint)
        former = identities_of(settings)
    assert changed(by_content, former) == ALL
    run = folder / "run"
    (run / "stages" / f"sft-{former['sft'][:8]}").mkdir(parents=True)
    continued = pipeline.for_run(run).identities
    assert continued["sft"] == former["sft"] and continued["other"] == by_content["other"]
    (run / "stages" / f"rl-{continued['rl'][:8]}").mkdir()  # begun by this version
    assert pipeline.for_run(run).identities == continued
    (folder / "model" / "model.safetensors").write_bytes(b"123")
    assert pipeline.for_run(run).identities["sft"] not in (former["sft"], by_content["sft"])


def test_writing_a_default_out_changes_nothing(folder: Path):
    assert changed(identities(folder), identities(folder, "stages.sft.warmup=0")) == set()


def test_the_version_of_a_kinds_code_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = pipeline_of({"a": {}}, tmp_path).identities
    monkeypatch.setattr(CountStage, "version", 2)
    assert changed(before, pipeline_of({"a": {}}, tmp_path).identities) == {"a"}
