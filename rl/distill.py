"""IT-teacher distillation: the student learns K sampled logits a token of the teacher, on demonstrations."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from contracts.stage import Stage
from curation.load import load_data
from policy.engine import run_training, training_arguments
from policy.head import Targets
from policy.load import load_policy
from policy.logprobs import weighted_logprobs
from policy.training import save_trained, trainable
from rl.distill_config import DistillStage
from rl.sft import demonstration_tokens
from rl.teachers.opening import open_teacher
from rl.teachers.rows import teaching_rows
from rl.teachers.teacher import Row, Teacher


def run(config: DistillStage, stage: Stage) -> None:
    """Distil `config.teacher` into `config.policy` and save the student to `stage.output`."""
    assert config.policy is not None
    if stage.output.exists():  # saved whole just before a kill
        return
    student = load_policy(config.policy, stage.inputs, stage.root, seed=stage.seed, tokens=config.stated_length)
    data = load_data(stage.data[config.data], name=config.data, seed=stage.seed, root=stage.root)
    rows = demonstration_tokens(data.train, student, config.max_length, config.data, stage)
    teacher = open_teacher(config, student, stage, teaching_rows(rows))
    model = trainable(student, config.lora, stage.seed)
    folder = stage.folder / "checkpoints"
    arguments = training_arguments(config, stage, folder, model=model, remove_unused_columns=False)
    trainer = DistillTrainer(
        model=model,
        args=arguments,
        train_dataset=[{**row, "number": number} for number, row in enumerate(rows)],
        processing_class=student.tokenizer,
        teacher=teacher,
    )
    run_training(trainer, stage, folder, shown=("loss", "kl_from_teacher"))
    save_trained(trainer, student, stage.output, folder)


class DistillTrainer(Trainer):
    """transformers' Trainer with the sampled-logit loss, averaged over the completion tokens of an optimiser step."""

    def __init__(self, *, teacher: Teacher, **rest: Any) -> None:
        """`teacher` is asked for the targets of each micro-batch's tokens."""
        super().__init__(data_collator=list, **rest)
        self.teacher = teacher
        self.loss_is_scaled_for_ga = True
        self._divergence = torch.zeros(2, dtype=torch.float64)  # summed over tokens since the last line; tokens

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> int:
        """Completion tokens of the whole optimiser step, over all processes."""
        tokens = sum(len(row["completion"]) for batch in batch_samples for row in batch)
        count = torch.tensor(tokens, device=device)
        return int(self.accelerator.gather(count).sum())

    def compute_loss(
        self,
        model: Any,
        inputs: Sequence[dict[str, Any]],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """Cross-entropy to the teacher's sampled targets, as this micro-batch's share of the step's token mean."""
        rows = [Row(row["prompt"], row["completion"], row["number"], row["task"]) for row in inputs]
        prompts, completions = [row.prompt for row in rows], [row.completion for row in rows]
        teacher = self.teacher.targets(rows, [seed for row in inputs for seed in self._seeds(row)])
        total, scores = weighted_logprobs(model, prompts, completions, torch.ones(len(inputs)), Targets(teacher.choose))
        divergence_M = teacher.divergence(scores)
        own = torch.stack([divergence_M.sum(), divergence_M.new_tensor(len(divergence_M))])
        self._divergence += self.accelerator.gather(own[None]).sum(dim=0).cpu()
        return -total / num_items_in_batch * self.accelerator.num_processes

    def _seeds(self, row: dict[str, Any]) -> list[int]:
        """Of the draws for a row's completion tokens in this step, whichever process and micro-batch has it."""
        source = random.Random(f"{self.args.seed}, step {self.state.global_step}, row {row['number']}")
        return [source.getrandbits(63) for _ in row["completion"]]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean divergence from the teacher over the whole vocabulary since the last line."""
        total, tokens = self._divergence.tolist()
        self._divergence.zero_()
        super().log({**logs, "kl_from_teacher": total / tokens} if tokens else logs, *args, **kwargs)
