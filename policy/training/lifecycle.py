"""Start and end of every stage that trains a policy: seeds and adapters, saving and removing checkpoints."""

from pathlib import Path

import torch
from transformers import Trainer, set_seed

from gemsmith.policy.config import LoraConfig
from gemsmith.policy.loading.load import save_policy
from gemsmith.policy.loading.lora import ADAPTER, adapter_of, merged, with_lora
from gemsmith.policy.policy import Policy
from gemsmith.policy.training.engine import remove_checkpoints
from gemsmith.policy.training.processes import wait_for_all
from gemsmith.policy.training.sharding import is_sharded, whole_copy


def trainable(policy: Policy, lora: LoraConfig | None, seed: int) -> torch.nn.Module:
    """Return the policy's model, with fresh adapters if the recipe has `lora`; they depend only on the seed."""
    set_seed(seed)
    return with_lora(policy.model, lora) if lora else policy.model


def trained(trainer: Trainer) -> torch.nn.Module | None:
    """Return the trained model without adapters, in the first process; None in the others. Every process must call
    this.
    """
    if is_sharded(trainer.model):
        return whole_copy(trainer.model)
    return merged(trainer.model) if trainer.is_world_process_zero() else None


def save_trained(trainer: Trainer, policy: Policy, output: Path, checkpoints: Path) -> None:
    """Write the trained policy, adapters merged, from the first process, and remove its checkpoints.

    The adapters alone are written to `adapter/` beside it, except under ZeRO-3, which holds them in parts.
    """
    adapter = None if is_sharded(trainer.model) else adapter_of(trainer.model)
    model = trained(trainer)
    if model is not None:
        add_adapter = (lambda part: adapter.save(part / ADAPTER)) if adapter is not None else None
        save_policy(Policy(model, policy.tokenizer), output, add_adapter)
        remove_checkpoints(checkpoints)
    wait_for_all()
