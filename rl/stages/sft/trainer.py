"""TRL's SFTTrainer with the cross-entropy of policy/head, which needs fewer head matmuls and skips prompt tokens."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import SFTTrainer

from gemsmith.policy.head.logprobs import weighted_forward
from gemsmith.policy.head.vocabulary_head import Targets

IGNORED = -100
TOKENS = "tokens_seen.json"


class SftTrainer(SFTTrainer):
    """SFTTrainer for text with plain cross-entropy; it logs TRL's metrics, from the same forward pass.

    Without Triton, TRL computes the logits of all positions, prompts included, with 3 matmuls of the head under LoRA
    and 4 without; this class needs 2 and 3, at labelled positions only.
    """

    def __init__(self, *args: Any, sequence_parallel: int = 1, **fields: Any) -> None:
        """Pass TRL's arguments on; groups of `sequence_parallel` processes share sequences, whose tokens count once."""
        super().__init__(*args, **fields)
        self._sequence_parallel = sequence_parallel

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Return the micro-batch's summed cross-entropy divided by the number of labels of the optimiser step."""
        inputs = dict(inputs)
        labels_SL = inputs.pop("labels")
        positions_SL = torch.nn.functional.pad(labels_SL[:, 1:] != IGNORED, (0, 1))  # the last has no next token
        targets_M = labels_SL.roll(-1, dims=1)[positions_SL]
        tokens = torch.as_tensor(len(targets_M) if num_items_in_batch is None else num_items_in_batch).clamp(min=1)
        share_M = (1.0 / tokens.to(targets_M.device)).expand(len(targets_M))
        total, scores = weighted_forward(model, positions_SL, Targets.given(targets_M), share_M, entropy=True, **inputs)
        self._note(inputs, len(targets_M), scores.entropy.sum(), scores.best.sum())
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # DDP averages gradients over processes, but `tokens` counts the labels of all processes.
            total = total * self.accelerator.num_processes
        return -total

    def _note(self, inputs: dict[str, Any], count: int, entropy: Tensor, correct: Tensor) -> None:
        """Record TRL's metrics over all processes: mean entropy and accuracy at the labels, and the tokens seen."""
        mode = "train" if self.model.training else "eval"
        seen = inputs["attention_mask"].sum() if "attention_mask" in inputs else inputs["input_ids"].numel()
        own = torch.stack(
            [torch.as_tensor(x, dtype=torch.float64, device=entropy.device) for x in (count, entropy, correct, seen)]
        )
        labels, entropy_sum, right, tokens = self.accelerator.gather(own[None]).sum(dim=0).tolist()
        self._metrics[mode]["entropy"].append(entropy_sum / max(labels, 1))
        self._metrics[mode]["mean_token_accuracy"].append(right / max(labels, 1))
        if mode == "train":
            self._total_train_tokens += int(tokens) // self._sequence_parallel
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save the number of tokens seen too, which TRL counts from 0 again after an interruption."""
        super()._save_checkpoint(model, trial)
        if self.is_world_process_zero():
            folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            (folder / TOKENS).write_text(json.dumps(self._total_train_tokens))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and (file := Path(checkpoint) / TOKENS).exists():  # not in those of earlier versions
            self._total_train_tokens = json.loads(file.read_text())
