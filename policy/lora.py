"""Low-rank adapters on a policy, by peft: put on before training, merged into the weights after it."""

import peft
from transformers import Gemma3ForCausalLM

from policy.config import LoraConfig


def with_lora(model: Gemma3ForCausalLM, config: LoraConfig) -> peft.PeftModel:
    """The model with trainable adapters and frozen weights; its modules are changed in place.

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
    """The plain model with the adapters added into its weights, all trainable again; a plain model as it is."""
    if not isinstance(model, peft.PeftModel):
        return model
    plain = model.merge_and_unload()
    if hasattr(plain, "peft_config"):
        del plain.peft_config
    return plain.requires_grad_(True)
