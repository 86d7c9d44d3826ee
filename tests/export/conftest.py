import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gemsmith.contracts.stage import Stage
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy, save_policy


@pytest.fixture
def write_run(tmp_path) -> Callable[..., Path]:
    """Writes a run whose stage `sft` starts from `tiny` and moves its weights by `change`; returns its output."""

    def write(change: float, kind: str = "sft", model: str = "tiny") -> Path:
        run = tmp_path / "run"
        stage = run / "stages" / "sft-01234567"
        policy = load_policy(PolicyConfig(model="tiny"), seed=3)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter += change * torch.randn(parameter.shape, generator=generator)
        stage.mkdir(parents=True)
        save_policy(policy, stage / "output")
        config = {
            "id": "sft",
            "kind": kind,
            "policy": {"model": model},
            "data": "sums",
            "steps": 7,
            "learning_rate": 0.001,
        }
        (stage / "stage.json").write_text(json.dumps({"id": "sft", "kind": kind, "inputs": {}, "config": config}))
        record = {"id": "sft", "kind": kind, "folder": "stages/sft-01234567", "status": "finished", "inputs": []}
        (run / "run.json").write_text(json.dumps({"name": "sums-run", "seed": 3, "stages": [record]}))
        (run / "recipe.yaml").write_text("name: sums-run\nseed: 3\n")
        return stage / "output"

    return write


@pytest.fixture
def export_stage(tmp_path) -> Callable[[Path], Stage]:
    """The stage that exports the policy of `sft`."""

    def build(source: Path) -> Stage:
        folder = source.parents[1] / "release-89abcdef"
        return Stage(id="release", folder=folder, seed=3, root=tmp_path, inputs={"sft": source})

    return build
