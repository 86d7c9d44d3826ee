"""Members that start from different steps of one SFT run with a shared head from its last step (Baklava)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.policy.config import LoraConfig, PolicyConfig
from gemsmith.policy.loading.load import save_policy
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.reward_models.config import WarmStage
from gemsmith.reward_models.warm import run
from tests.messages import raises_facts
from tests.reward_models.stages import warm_stage, write_pairs

pytestmark = pytest.mark.usefixtures("shallow_tiny")
FOLDERS = {2: "kept/2", 3: "kept/3", 4: "output"}


@pytest.fixture(scope="module")
def sft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output of a substitute for an SFT stage of four steps, with pairs next to it."""
    folder = tmp_path_factory.mktemp("sft")
    write_pairs(folder / "pairs.jsonl")
    for step, name in FOLDERS.items():
        save_policy(tiny_policy(seed=step), folder / name)
    (folder / "kept.json").write_text('{"2": "kept/2", "3": "kept/3", "4": "output"}')
    return folder / "output"


def stage_from(sft: Path, folder: Path, **fields: Any) -> tuple[WarmStage, Stage]:
    fields = {"policy": PolicyConfig(from_="sft"), "steps": 1, "probe_steps": 2, **fields}
    config, stage = warm_stage(folder, sft.parent, **fields)
    stage.inputs = {"sft": sft}
    return config, stage


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_members_have_the_layers_of_their_step_and_one_head(sft: Path, tmp_path: Path, lora: LoraConfig | None):
    config, stage = stage_from(sft, tmp_path, starts=[2, 4, 3], learning_rates=[0.0], members=4, lora=lora)
    run(config, stage)
    probed = weights(tmp_path / "probe")
    assert torch.equal(probed["model.norm.weight"], weights(sft)["model.norm.weight"])  # the probe uses the last step
    for member, step in enumerate((2, 4, 3, 2)):  # untrained, as the learning rate is 0
        found, start = weights(tmp_path / f"members/{member}"), weights(sft.parent / FOLDERS[step])
        assert torch.equal(found.pop("score.weight"), probed["score.weight"])
        assert found.keys() == start.keys() and all(torch.equal(found[name], start[name]) for name in found)
    summary = (stage.output / "warm.json").read_text()
    assert [int(part.split(",")[0]) for part in summary.split('"start": ')[1:]] == [2, 4, 3, 2]


def test_without_starts_members_are_of_the_last_step(sft: Path, tmp_path: Path):
    config, stage = stage_from(sft, tmp_path, learning_rates=[0.0], members=1)
    run(config, stage)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(weights(tmp_path / "members/0")[name], weights(sft)[name])
    assert '"start": null' in (stage.output / "warm.json").read_text()


def test_a_step_that_was_not_kept_is_told_before_anything_is_computed(sft: Path, tmp_path: Path):
    config, stage = stage_from(sft, tmp_path, starts=[2, 1])
    with raises_facts(UserError, "step 1", "2, 3, 4"):
        run(config, stage)
    assert not (tmp_path / "probe").exists()
    config, stage = stage_from(sft, tmp_path, starts=[2], policy=PolicyConfig(model="tiny"))
    with raises_facts(UserError, "`starts`", "kind sft", "policy.from"):
        run(config, stage)
