"""A teacher on a real vLLM server, which takes a minute to start."""

import importlib.util
from pathlib import Path

import pytest
import torch

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.policy.config import SamplerConfig
from gemsmith.policy.loading.load import save_policy
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.vllm_server import serving
from gemsmith.recipes.commands.actions.policy_export import export_policy
from gemsmith.rl.teachers.config import TaughtConfig
from gemsmith.rl.teachers.opening import open_teacher
from gemsmith.rl.teachers.teacher import TeacherRow
from tests.messages import raises_facts
from tests.rl.teachers.conftest import full_logprobs

WITHOUT = "vllm is not installed (WITH_VLLM=1 make setup installs it on x86-64 Linux)"


def taught(url: str, k: int) -> TaughtConfig:
    return TaughtConfig.model_validate({"teacher": {"server": url}, "mode": "topk", "sampled_logits": k})


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason=WITHOUT)
def test_vllms_prompt_logprobs_are_the_likeliest_entries_of_the_policy_that_it_serves(
    student: Policy, rows: list[TeacherRow], stage: Stage, tmp_path: Path
) -> None:
    other = tiny_policy(seed=9)
    save_policy(other, tmp_path / "policy")
    export_policy(tmp_path / "policy", None, tmp_path / "export")
    config = SamplerConfig(backend="server", cache_gib=0.25, timeout=300)
    with serving(tmp_path / "export", config, tmp_path / "log", print) as url:
        targets = open_teacher(taught(url, 16), student, stage, rows).targets(rows, [])
        with raises_facts(UserError, "status 400", 20):  # vLLM's max_logprobs
            open_teacher(taught(url, 24), student, stage, rows)
    truth_MV = full_logprobs(other, rows)
    best = truth_MV.topk(16)
    assert torch.allclose(targets.logprobs_MK, best.values, atol=1e-4)
    assert (targets.ids_MK == best.indices).float().mean() > 0.95  # except for ties after rounding
    own = torch.tensor([token for row in rows for token in row.completion])
    assert torch.allclose(targets.own_M, truth_MV.gather(-1, own[:, None])[:, 0], atol=1e-4)
