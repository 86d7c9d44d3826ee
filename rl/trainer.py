"""The training loop of every algorithm that learns from its own samples, blind to which algorithm it is."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from curation.example import Example
from policy.logprobs import token_logprobs
from policy.weight_set import WeightSet
from rl.algorithm import Weighted
from rl.rollout import RolloutCollector

ANCHOR = "anchor.safetensors"


class RolloutTrainer(Trainer):
    """Rolls out the prompts of one optimiser step together, then learns from the sequences in micro-batches."""

    def __init__(
        self, *, collector: RolloutCollector, examples: Sequence[Example], seed: int, shown: Path, **rest: Any
    ):
        """Train `rest["model"]` on `examples`; `seed` varies the samples, `shown` receives some of them."""
        super().__init__(train_dataset=_Indices(len(examples)), data_collator=_stack, **rest)
        self.collector, self.examples, self.seed, self.shown = collector, examples, seed, shown
        self.model_accepts_loss_kwargs = False
        self._rollout_metrics: dict[str, list[float]] = defaultdict(list)
        if collector.anchor is not None:
            self.add_callback(_AnchorCallback(collector.anchor, collector.algorithm.anchor_rate))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], None]:
        """The micro-batches of one optimiser step: roll out all its prompts, weigh the completions, deal them out."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        examples = [self.examples[i] for batch in batches for i in batch["index"].tolist()]
        seed = (self.seed * 1_000_003 + self.state.global_step) * self.args.world_size + self.args.process_index
        rollouts, metrics = self.collector.collect(examples, seed)
        sequences, more = self.collector.algorithm.weigh(rollouts)
        for name, value in (metrics | more).items():
            self._rollout_metrics[name].append(value)
        if self.state.global_step % self.args.save_steps == 0 and self.is_world_process_zero():
            self._write_shown()
        parts = len(batches)
        return [{"sequences": sequences[part::parts], "parts": parts} for part in range(parts)], None

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """-sum(weight * log pi) of one micro-batch; the Trainer's division by the number of parts is undone."""
        sequences: list[Weighted] = inputs["sequences"]
        if not sequences:  # every weight was zero: nothing to learn, but a graph for the engine to walk
            return sum(parameter.sum() for parameter in model.parameters() if parameter.requires_grad) * 0.0
        logprobs_ST, mask_ST = token_logprobs(
            model, [sequence.prompt for sequence in sequences], [sequence.completion for sequence in sequences]
        )
        weight_S = torch.tensor([sequence.weight for sequence in sequences], device=logprobs_ST.device)
        return -(weight_S * (logprobs_ST * mask_ST).sum(dim=1)).sum() * inputs["parts"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the means of the rollouts' metrics since the last line."""
        means = {name: sum(values) / len(values) for name, values in self._rollout_metrics.items()}
        self._rollout_metrics.clear()
        super().log({**logs, **means}, *args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.collector.anchor is not None:
            self.collector.anchor.load(Path(resume_from_checkpoint) / ANCHOR)

    def _write_shown(self) -> None:
        with self.shown.open("a") as file:
            for row in self.collector.shown:
                file.write(json.dumps({"step": self.state.global_step, **row}) + "\n")


class _AnchorCallback(TrainerCallback):
    """Moves the anchor after every optimiser step and keeps it in every checkpoint."""

    def __init__(self, anchor: WeightSet, rate: float) -> None:
        self.anchor, self.rate = anchor, rate

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.anchor.update(self.rate)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.anchor.save(Path(args.output_dir) / f"checkpoint-{state.global_step}" / ANCHOR)


class _Indices(Dataset[int]):
    """The numbers of the prompts; the trainer looks the prompts up."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


def _stack(indices: list[int]) -> dict[str, Tensor]:
    return {"index": torch.tensor(indices)}
