"""What every stage that trains a policy does before and after: seeds and adapters, saving and clearing up."""

from pathlib import Path

import torch
from transformers import Trainer, set_seed

from policy.config import LoraConfig
from policy.engine import remove_checkpoints
from policy.load import save_policy
from policy.lora import merged, with_lora
from policy.policy import Policy


def trainable(policy: Policy, lora: LoraConfig | None, seed: int) -> torch.nn.Module:
    """The policy's model, with fresh adapters where the recipe asks for them; they depend on the seed alone."""
    set_seed(seed)
    return with_lora(policy.model, lora) if lora else policy.model


def save_trained(trainer: Trainer, policy: Policy, output: Path, checkpoints: Path) -> None:
    """Write the trained policy, adapters merged, from the first process, and remove its checkpoints."""
    if trainer.is_world_process_zero():
        save_policy(Policy(merged(trainer.model), policy.tokenizer), output)
        remove_checkpoints(checkpoints)
    trainer.accelerator.wait_for_everyone()
