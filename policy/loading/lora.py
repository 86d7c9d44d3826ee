"""Low-rank adapters on a policy, by peft: added before training, merged into the weights after it."""

import copy
from dataclasses import dataclass
from pathlib import Path

import peft
from safetensors.torch import save_file
from torch import Tensor
from transformers import Gemma3ForCausalLM

from gemsmith.policy.config import LoraConfig

ADAPTER = "adapter"  # folder of a stage's adapter, in that of its policy


@dataclass(frozen=True)
class Adapter:
    """Trained adapters before merging, under peft's names."""

    config: peft.PeftConfig
    tensors: dict[str, Tensor]

    def save(self, folder: Path) -> None:
        """Write a folder that peft loads, without the name of the base."""
        folder.mkdir(parents=True)
        save_file(self.tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        self.config.save_pretrained(str(folder))


def with_lora(model: Gemma3ForCausalLM, config: LoraConfig) -> peft.PeftModel:
    """Return the model with trainable adapters and frozen weights; its modules are changed in place.

    An adapter starts as the identity (B = 0); A is drawn from torch's global generator.
    """
    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=config.targets,
            task_type=peft.TaskType.CAUSAL_LM,
        ),
    )


def merged(model: Gemma3ForCausalLM | peft.PeftModel) -> Gemma3ForCausalLM:
    """Return the plain model with the adapters added to its weights, all trainable again; a plain model is
    unchanged.
    """
    if not isinstance(model, peft.PeftModel):
        return model
    plain = model.merge_and_unload()
    if hasattr(plain, "peft_config"):
        del plain.peft_config
    return plain.requires_grad_(True)


def adapter_of(model: Gemma3ForCausalLM | peft.PeftModel) -> Adapter | None:
    """Return a copy of the model's adapters; None without adapters. Call this before they are merged."""
    if not isinstance(model, peft.PeftModel):
        return None
    config = copy.deepcopy(model.peft_config["default"])
    config.inference_mode, config.base_model_name_or_path = True, None
    tensors = peft.get_peft_model_state_dict(model)
    return Adapter(config, {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()})
