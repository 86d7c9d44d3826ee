import json
from types import SimpleNamespace

import peft
import pytest
import torch

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.export.config import ExportStage
from gemsmith.export.export_stage import run
from gemsmith.policy.config import LoraConfig, PolicyConfig
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.loading.lora import with_lora
from gemsmith.policy.training.lifecycle import save_trained


@pytest.fixture
def trained_with_lora(write_run):
    """The output of a stage that trained adapters on `tiny` of seed 3; training is replaced by drawing B."""
    output = write_run(0.0)
    policy = load_policy(PolicyConfig(model="tiny"), seed=3)
    torch.manual_seed(0)
    model = with_lora(policy.model, LoraConfig(rank=4, alpha=8))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    trainer = SimpleNamespace(model=model, is_world_process_zero=lambda: True)
    save_trained(trainer, policy, output, output.parent / "checkpoints")
    return output


def config(**fields):
    given = {"id": "release", "kind": "export", "policy": {"from": "sft"}, "base": {"model": "tiny"}, **fields}
    return ExportStage.model_validate(given)


def test_a_stage_keeps_its_adapter_beside_the_merged_policy_and_peft_puts_it_on_the_base(
    trained_with_lora, export_stage
):
    stage = export_stage(trained_with_lora)
    run(config(formats=["transformers", "adapter"]), stage)
    proof = json.loads((stage.output / "export.json").read_text())
    assert proof["adapter"]["rank"] == 4
    assert 0 <= proof["adapter"]["gap"] < 1e-3
    assert json.loads((stage.output / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == (
        "tiny (small)"
    )
    base, merged = load_policy(PolicyConfig(model="tiny"), seed=3), load_policy(PolicyConfig(model=str(stage.output)))
    ids = torch.tensor([[2, 105, 370, 371]])
    before = base.model(ids).logits
    adapted = peft.PeftModel.from_pretrained(base.model, str(stage.output / "adapter"))
    assert torch.allclose(adapted(ids).logits, merged.model(ids).logits, atol=1e-3)
    assert not torch.allclose(before, merged.model(ids).logits, atol=0.1)


def test_an_adapter_on_another_base_is_not_the_policy(trained_with_lora, export_stage):
    stage = export_stage(trained_with_lora)
    stage.seed = 4  # tiny with other weights
    with pytest.raises(RunError, match=r"log-probability differs by .* nats"):
        run(config(formats=["adapter"]), stage)
    assert not stage.output.exists()


def test_without_lora_or_without_a_base_there_is_no_adapter(write_run, trained_with_lora, export_stage):
    with pytest.raises(UserError, match="`base`"):
        run(config(formats=["adapter"], base=None), export_stage(trained_with_lora))
    (trained_with_lora / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(UserError, match=r"has no adapter to export.*trained with `lora`"):
        run(config(formats=["adapter"]), export_stage(trained_with_lora))
