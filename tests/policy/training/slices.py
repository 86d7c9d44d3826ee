"""Runs under a launcher: slices.py FOLDER; losses and gradients of sequences that two processes share, or one has."""

import json
import sys
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, distributed
from transformers import Gemma3ForCausalLM

from gemsmith.contracts.processes import count, rank
from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import ReasoningGymData
from gemsmith.policy.config import EngineConfig, LoraConfig, PolicyConfig
from gemsmith.policy.loading import tiny
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.training.processes import initialise_processes, wait_for_all
from gemsmith.policy.training.sequence_parallel import Part, own_labels, sliced
from gemsmith.rl.stages.sft.config import SftStage
from gemsmith.rl.stages.sft.stage import run as run_sft
from tests.shallow import make_tiny_shallow

ENGINES = ("plain", "zero2", "plain-lora", "zero3-lora-checkpointing")
ATTENTIONS = [
    name for name in ("sdpa", "eager", "fused") if name in get_args(PolicyConfig.model_fields["attention"].annotation)
]


def model_of(attention: str, key_heads: int) -> Gemma3ForCausalLM:
    """A tiny Gemma 3 with four query heads, the same in every process."""
    config = tiny.tiny_config()
    config.num_key_value_heads = key_heads
    torch.manual_seed(0)
    model = Gemma3ForCausalLM(config).train()
    named = load_policy(PolicyConfig.model_validate({"model": "tiny", "attention": attention})).model
    model.set_attn_implementation(named.config._attn_implementation)
    return model


def batches() -> dict[str, dict[str, Tensor]]:
    """Sequences longer than the window: whole, of a length that two does not divide, packed, and padded."""
    ids = torch.randint(3, 500, (2, 129), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 70:] = 0
    restarting = torch.cat([torch.arange(50), torch.arange(79)]).expand(2, -1)
    return {
        "whole": {"input_ids": ids[:, :128], "labels": ids[:, :128]},
        "odd": {"input_ids": ids, "labels": ids},
        "packed": {"input_ids": ids, "labels": ids, "position_ids": restarting},
        "padded": {"input_ids": ids, "labels": ids.masked_fill(mask == 0, -100), "attention_mask": mask},
        "one slice": {"input_ids": ids, "labels": ids.masked_fill(torch.arange(129) < 100, -100)},
    }


def step(model: Gemma3ForCausalLM, batch: dict[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of a batch, shared with the other processes where there are some."""
    items = (batch["labels"][:, 1:] != -100).sum()
    model.zero_grad()
    if count() == 1:
        loss = model(**batch, num_items_in_batch=items, use_cache=False).loss
        loss.backward()
        return float(loss.detach()), {name: p.grad.clone() for name, p in model.named_parameters()}
    part = Part(count(), rank(), distributed.group.WORLD)
    with sliced(model.model, part):
        mine = own_labels(lambda rows: rows[0], part, [batch])
        loss = model(**mine, num_items_in_batch=items, use_cache=False).loss
        loss.backward()
    total = loss.detach().clone()
    for tensor in [total, *(p.grad for p in model.parameters())]:
        distributed.all_reduce(tensor)
    return float(total), {name: p.grad.clone() for name, p in model.named_parameters()}


def train(folder: Path, name: str) -> None:
    """A stage of supervised fine-tuning on sequences of about 130 tokens."""
    more = {"lora": LoraConfig(rank=4, alpha=8)} if "lora" in name else {}
    config = SftStage.model_validate(
        {
            **{"id": "s", "kind": "sft", "policy": {"model": "tiny"}, "data": "sums", "steps": 3, "batch": 4},
            **{"micro_batch": 2, "learning_rate": 2e-4, "gradient_checkpointing": "checkpointing" in name, **more},
        }
    )
    sums = ReasoningGymData(
        source="reasoning_gym",
        task="chain_sum",
        size=60,
        prompt="{metadata[expression]} is what " + " and ".join(str(n) for n in range(20)) + " are not:",
        synthesise={"right": 1.0},
    )
    deepspeed = {"deepspeed": {"zero": int(name[4])}} if name.startswith("zero") else {}
    engine = EngineConfig.model_validate({**deepspeed, "sequence_parallel": count()})
    run_sft(config, Stage("s", folder / name, 3, root=folder, data={"sums": sums}, engine=engine))


def main(folder: Path) -> None:
    """Everything, in one start; gradients go to gradients.pt, losses to losses.json, stages to folders."""
    make_tiny_shallow()
    initialise_processes()
    folder.mkdir(parents=True, exist_ok=True)
    losses, gradients = {}, {}
    for attention in ATTENTIONS:
        for key_heads in (1,) if attention == "eager" else (1, 2):
            model = model_of(attention, key_heads)
            for name, batch in batches().items():
                case = f"{attention} {key_heads} {name}"
                losses[case], gradients[case] = step(model, batch)
    if rank() == 0:
        (folder / "losses.json").write_text(json.dumps(losses))
        torch.save(gradients, folder / "gradients.pt")
    for name in ENGINES if count() > 1 else ("plain", "plain-lora"):
        wait_for_all()
        train(folder, name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
