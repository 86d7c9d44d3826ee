"""Interrupted runs come to the bytes of an uninterrupted one; `benchmarks/kill.py` tries many more moments."""

import json
from pathlib import Path

import pytest

from benchmarks.kill import differences, run


@pytest.mark.slow
def test_a_run_of_every_stage_kind_that_is_interrupted_three_times_ends_with_the_same_bytes(tmp_path: Path) -> None:
    (outcome,) = run(tmp_path, moments=3, runs=1, seed=1)
    assert len(outcome.moments) == 3
    assert outcome.differences == [] and outcome.left == []


def test_a_changed_weight_file_and_a_changed_metric_are_differences_and_a_time_is_not(tmp_path: Path) -> None:
    for name in ("one", "two"):
        output = tmp_path / name / "stages/sft-1/output"
        output.mkdir(parents=True)
        (output / "model.safetensors").write_bytes(b"same")
        (output / "scores.json").write_text(json.dumps({"mean": 1.0, "seconds": len(name)}))
        row = {"step": 1, "loss": 0.5, "step_seconds": hash(name)}
        (output.parent / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert differences(tmp_path / "one", tmp_path / "two") == []
    (tmp_path / "two/stages/sft-1/output/model.safetensors").write_bytes(b"else")
    (tmp_path / "two/stages/sft-1/metrics.jsonl").write_text('{"step": 1, "loss": 0.25}\n')
    (tmp_path / "two/stages/sft-1/output/more.txt").write_text("more")
    assert differences(tmp_path / "one", tmp_path / "two") == [
        "stages/sft-1/metrics.jsonl",
        "stages/sft-1/output/model.safetensors",
        "stages/sft-1/output/more.txt",
    ]
