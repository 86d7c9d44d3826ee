"""An exported policy is evaluated through a server that the stage starts from it."""

import importlib.util
import json

import psutil
import pytest

from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import ReasoningGymData
from gemsmith.evals import evaluate_stage
from gemsmith.evals.config import EvaluateStage
from gemsmith.export import export_stage as exporting
from gemsmith.export.config import ExportStage
from gemsmith.rl.rewards.config import MathReward

WITHOUT = "vllm is not installed (WITH_VLLM=1 make setup installs it on x86-64 Linux)"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason=WITHOUT)
def test_an_export_is_evaluated_by_a_server_that_the_stage_starts_and_ends(write_run, export_stage, tmp_path):
    release = export_stage(write_run(0.02))
    exporting.run(ExportStage.model_validate({"id": "release", "kind": "export", "policy": {"from": "sft"}}), release)
    data = {"source": "reasoning_gym", "task": "chain_sum", "size": 20, "holdout": 0.3}
    config = EvaluateStage.model_validate(
        {
            "id": "scores", "kind": "evaluate", "policies": ["release"], "data": "sums", "prompts": 4, "samples": 3,
            "rewards": ["correct"], "sampling": {"max_tokens": 8},
            "sampler": {"backend": "server", "cache_gib": 0.25, "mismatch_warning": 1e-4, "mismatch_limit": 1e-3},
        }
    )  # fmt: skip
    said = []

    class Watcher:
        def progress(self, *_):
            pass

        def say(self, message):
            said.append(message)

    stage = Stage(
        "scores", tmp_path / "scores", 0, tmp_path, {"release": release.output},
        {"sums": ReasoningGymData.model_validate(data)}, {"correct": MathReward(kind="math")}, None, Watcher(),
    )  # fmt: skip
    evaluate_stage.run(config, stage)
    (scores,) = json.loads((stage.output / "scores.json").read_text())["policies"]
    assert scores["kl"]["mean"] == 0.0 and 0 < scores["length"]["mean"] <= 8
    assert any("starting vLLM's server" in line for line in said)
    assert not any("differ by" in line for line in said)
    living = [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]
    assert not [one for one in living if "vllm" in " ".join(one.cmdline())]
