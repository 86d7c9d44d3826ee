import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from gemsmith.policy.config import LoraConfig
from gemsmith.policy.loading.lora import with_lora
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.rl.stages.sft.trainer import SftTrainer

ROWS = [  # prompts have no label; the rows differ in length, so that one is padded
    {"input_ids": [2, 400, 401, 402, 403, 106], "labels": [-100, -100, -100, 402, 403, 106]},
    {"input_ids": [2, 410, 411, 106], "labels": [-100, -100, 411, 106]},
]


def losses(trainer_class, folder, lora):
    """Loss, gradients and metrics of one batch, as a third of a step of 15 labels."""
    policy = tiny_policy(seed=3)
    torch.manual_seed(0)
    trainer = trainer_class(
        model=with_lora(policy.model, LoraConfig(rank=4)) if lora else policy.model,
        args=SFTConfig(
            output_dir=str(folder),
            use_cpu=True,
            bf16=False,
            max_length=None,
            report_to="none",
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list(ROWS),
        processing_class=policy.tokenizer,
    )
    trainer.model.train()
    batch = dict(trainer.data_collator(ROWS))
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(15))
    loss.backward()
    gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, {name: values[-1] for name, values in trainer._metrics["train"].items()}


@pytest.mark.parametrize("lora", [False, True])
def test_loss_gradients_and_metrics_are_those_of_trl(tmp_path, lora):
    ours, theirs = (losses(each, tmp_path, lora) for each in (SftTrainer, SFTTrainer))
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-5, rtol=1e-5)
    assert ours[1].keys() == theirs[1].keys() and ours[1]
    for name, gradient in ours[1].items():
        assert (gradient - theirs[1][name]).norm() <= 1e-5 * theirs[1][name].norm() + 1e-7, name
    assert ours[2] == pytest.approx(theirs[2], rel=1e-5)
