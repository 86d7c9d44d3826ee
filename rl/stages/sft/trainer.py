"""TRL's SFTTrainer with the cross-entropy of policy/head: fewer products than TRL's own, at the labels alone."""

from typing import Any

import torch
from torch import Tensor
from trl import SFTTrainer

from gemsmith.policy.head.logprobs import weighted_forward
from gemsmith.policy.head.vocabulary_head import Targets

IGNORED = -100


class SftTrainer(SFTTrainer):
    """SFTTrainer for text and the plain cross-entropy; its metrics are TRL's, from the same pass.

    TRL computes every position where Triton is missing, prompts too, with 3 products of the head under LoRA and 4
    without; here it is 2 and 3.
    """

    def __init__(self, *args: Any, sequence_parallel: int = 1, **fields: Any) -> None:
        """TRL's arguments; `sequence_parallel` processes are given the same sequences and count their tokens once."""
        super().__init__(*args, **fields)
        self._sequence_parallel = sequence_parallel

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Cross-entropy summed over the labels of this micro-batch, over the number of labels of the optimiser step."""
        inputs = dict(inputs)
        labels_SL = inputs.pop("labels")
        positions_SL = torch.nn.functional.pad(labels_SL[:, 1:] != IGNORED, (0, 1))  # the last predicts nothing here
        targets_M = labels_SL.roll(-1, dims=1)[positions_SL]
        tokens = torch.as_tensor(len(targets_M) if num_items_in_batch is None else num_items_in_batch).clamp(min=1)
        share_M = (1.0 / tokens.to(targets_M.device)).expand(len(targets_M))
        total, scores = weighted_forward(model, positions_SL, Targets.given(targets_M), share_M, entropy=True, **inputs)
        self._note(inputs, len(targets_M), scores.entropy.sum(), scores.best.sum())
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            total = total * self.accelerator.num_processes  # DDP averages gradients, and the count is over all
        return -total

    def _note(self, inputs: dict[str, Any], count: int, entropy: Tensor, correct: Tensor) -> None:
        """TRL's metrics: mean entropy and accuracy over labels, and the tokens seen, over all processes."""
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
