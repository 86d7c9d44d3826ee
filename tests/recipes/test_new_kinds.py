"""A stage kind and an algorithm of one's own are checked, planned, run and reported as the built-in ones are."""

import json
from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.policy.forecast import ADAM_BYTES, SAMPLING_FLOPS, START_SECONDS, TRAINING_FLOPS, WEIGHT_BYTES
from gemsmith.policy.sizes import TINY
from gemsmith.recipes.pipeline.pipeline import Pipeline, open_recipe
from gemsmith.recipes.plan.plan import forecast
from gemsmith.recipes.run.machine import cores
from gemsmith.recipes.run.record import read_stage
from gemsmith.recipes.run.runner import run_pipeline
from tests.messages import assert_facts, raises_facts
from tests.recipes.new_kinds import LargerRecipe

RECIPE = """
name: larger
policy: {model: tiny}
data: {sums: {source: reasoning_gym, task: chain_sum, size: 40, synthesise: {right: 0.5}}}
rewards: {correct: {kind: math, tasks: [chain_sum]}}
stages:
  - {id: sft, kind: sft, data: sums, steps: 1, batch: 4, learning_rate: 1.0e-3}
  - {id: shaken, kind: jitter, policy: {from: sft}}
  - id: expert
    kind: expert
    policy: {from: shaken}
    data: sums
    rewards: [correct]
    steps: 2
    batch: 4
    learning_rate: 1.0e-3
    sampling: {max_tokens: 4}
  - id: scores
    kind: evaluate
    policies: [sft, shaken, expert]
    data: sums
    rewards: [correct]
    samples: 1
    prompts: 2
    sampling: {max_tokens: 4}
"""


def opened(folder: Path, *changes: tuple[str, str], **sets: str) -> Pipeline:
    text = RECIPE.replace(", tasks: [chain_sum]", "")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "larger.yaml").write_text(text)
    return open_recipe(str(folder / "larger.yaml"), [f"{name}={value}" for name, value in sets.items()], LargerRecipe)


@pytest.mark.parametrize(
    ("old", "new", "facts"),
    [
        ("kind: jitter, policy: {from: sft}", "kind: jitter", ("stages.shaken.policy",)),
        ("kind: jitter", "kind: jiter", ('"jiter"', '"jitter"')),
        ("kind: jitter", "kind: jitter, scale: -1", ("stages.shaken.scale", "-1")),
        ("{from: shaken}", "{from: scores}", ('"scores"', "scores", "policy")),
        ("kind: math}", "kind: math, tasks: [other]}", ("stages.expert.rewards", "data.sums")),
        ("kind: math}", "kind: math, gate: brief}", ("rewards.correct.gate", "stage expert", '"brief"')),
        (
            "batch: 4\n    learning_rate",
            "batch: 4\n    max_length: 600\n    learning_rate",
            ("max_length", 600, "context", 512),
        ),
        (
            "rewards: {",
            "engine: {sequence_parallel: 2}\nrewards: {",
            ("engine.sequence_parallel", 2, '"expert"', "sft"),
        ),
    ],
)
def test_what_is_wrong_with_a_new_kind_is_said_by_field(
    tmp_path: Path, old: str, new: str, facts: tuple[object, ...]
) -> None:
    with raises_facts(UserError, *facts):
        opened(tmp_path, (old, new))


def test_processes_that_cannot_share_a_batch_are_named_for_a_new_algorithm(tmp_path: Path) -> None:
    stage = next(node.config for node in opened(tmp_path).nodes if node.id == "expert")
    assert stage.process_faults(2) == []
    assert stage.runs_in_every_process
    [(field, fault)] = stage.process_faults(3)
    assert field == ""
    assert_facts(fault, "3 processes", "batch 4")


def test_a_new_kind_that_does_not_train_runs_in_the_first_process_alone(tmp_path: Path) -> None:
    nodes = {node.id: node.config for node in opened(tmp_path).nodes}
    assert {name for name, stage in nodes.items() if stage.runs_in_every_process} == {"sft", "expert"}


def test_the_plan_counts_what_the_new_kinds_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemsmith.recipes.plan.plan.gpus", lambda: [])
    lines = {line.id: line for line in forecast(opened(tmp_path), tmp_path / "run")}
    weights, entries = TINY["small"].parameters, TINY["small"].vocabulary
    shaken, expert = lines["shaken"], lines["expert"]
    assert (shaken.parameters, shaken.trained, shaken.memory, shaken.seconds) == (weights, None, 4 * weights, 1.0)
    assert (expert.parameters, expert.trained) == (weights, weights)  # the size passes through the new stage
    # The trained weights with Adam, the initial policy and an anchor, and the logits of 4 rows of 16 tokens.
    assert expert.memory == (ADAM_BYTES + 2 * WEIGHT_BYTES) * weights + 2 * WEIGHT_BYTES * 4 * 16 * entries
    examples, flops = 2 * 4, 2.0 * weights / cores()
    learning = examples * 16 * 1 * 3 * flops / TRAINING_FLOPS  # one pass forward and backward over the best
    sampling = examples * 4 * 4 * flops / SAMPLING_FLOPS  # four completions of four tokens
    assert expert.seconds == pytest.approx(START_SECONDS + learning + sampling)


def test_a_run_with_new_kinds_is_recorded_skipped_and_reported(tmp_path: Path) -> None:
    run, pipeline = tmp_path / "run", opened(tmp_path)
    report = run_pipeline(pipeline, run)
    folders = {node.id: run / pipeline.folder(node) for node in pipeline.nodes}
    assert {read_stage(folder).status for folder in folders.values()} == {"finished"}
    rows = [json.loads(line) for line in (folders["expert"] / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2 and "best" in rows[-1] and "kl_to_initial" in rows[-1]
    assert "kl_to_initial" in json.loads((folders["expert"] / "estimators.json").read_text())
    table = json.loads((folders["scores"] / "output" / "scores.json").read_text())["policies"]
    assert [row["stage"] for row in table] == ["sft", "shaken", "expert"]
    assert report is not None
    text = report.read_text()
    assert "jitter" in text and "The policy of stage expert." in text
    before = {name: (folder / "stage.json").stat().st_mtime_ns for name, folder in folders.items()}
    run_pipeline(opened(tmp_path), run)
    assert {name: (folder / "stage.json").stat().st_mtime_ns for name, folder in folders.items()} == before
    changed = opened(tmp_path, ("kind: jitter", "kind: jitter, scale: 0.02"))
    assert [line.status for line in forecast(changed, run)] == ["finished", "to run", "to run", "to run"]
