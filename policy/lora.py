"""Low-rank adapters on a policy, by peft: put on before training, merged into the weights after it."""

import copy
import re
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Gemma3ForCausalLM

from policy.chat import END_OF_TURN
from policy.config import LoraConfig
from policy.policy import Policy

ADAPTER = "adapter"  # folder of a stage's adapter, in that of its policy
UNTAUGHT = 0.8  # mean cosine to unused tokens; a pretrained Gemma's <end_of_turn> has 0.93


@dataclass(frozen=True)
class Adapter:
    """Trained adapters by themselves, under peft's names, as they were before they were merged."""

    config: peft.PeftConfig
    tensors: dict[str, Tensor]

    def save(self, folder: Path) -> None:
        """Write a folder that peft loads; the name of the base stays open."""
        folder.mkdir(parents=True)
        save_file(self.tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        self.config.save_pretrained(str(folder))


def untaught_end(policy: Policy) -> str | None:
    """What to tell somebody who trains adapters on a policy that never met the end of a turn; None: it has.

    A pretrained Gemma's row for `<end_of_turn>` lies among those of its unused tokens. Adapters leave the embedding,
    which is the head too, as it is: no hidden state then makes the end likelier than each of these.
    """
    known = policy.tokenizer.get_vocab()
    unused = sorted(row for text, row in known.items() if re.fullmatch(r"<unused\d+>", text))[:100]
    rows_VD = policy.model.get_input_embeddings().weight.detach()
    if not unused or END_OF_TURN not in known:
        return None
    cosine = torch.cosine_similarity(rows_VD[known[END_OF_TURN]].float(), rows_VD[unused].float()).mean().item()
    if cosine < UNTAUGHT:
        return None
    return (
        f"the policy has never learnt {END_OF_TURN}: its row of the embedding is that of an unused token (cosine "
        f"{cosine:.2f}), and adapters leave it so, so that the policy will hardly end its answers; fine-tune all "
        "weights first, in a stage of kind sft without lora"
    )


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


def adapter_of(model: Gemma3ForCausalLM | peft.PeftModel) -> Adapter | None:
    """A copy of the model's adapters; None where it has none. To be asked before they are merged."""
    if not isinstance(model, peft.PeftModel):
        return None
    config = copy.deepcopy(model.peft_config["default"])
    config.inference_mode, config.base_model_name_or_path = True, None
    tensors = peft.get_peft_model_state_dict(model)
    return Adapter(config, {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()})
