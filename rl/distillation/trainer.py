"""Training loop of distillation on demonstrations and on-policy completions."""

import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import Trainer

from gemsmith.policy.head.logprobs import weighted_logprobs
from gemsmith.policy.training.processes import from_all
from gemsmith.policy.training.sharding import whole
from gemsmith.rl.distillation.divergence import Divergence, SampledDivergence, Watched, WholeDivergence
from gemsmith.rl.distillation.on_policy_completions import OnPolicyCompletions, Rows
from gemsmith.rl.rollouts.trainer import token_means
from gemsmith.rl.teachers.teacher import Teacher, TeacherRow


class DistillTrainer(Trainer):
    """Trainer of a student; dataset rows have the fields of `rl.teachers.teacher.TeacherRow` (`task` is optional)."""

    def __init__(
        self,
        *,
        teacher: Teacher,
        divergence: Divergence = "forward",
        jsd_beta: float = 0.5,
        average: Literal["tokens", "sequences"] = "tokens",
        on_policy_completions: OnPolicyCompletions | None = None,
        reward_weight: float = 0.0,
        **rest: Any,
    ) -> None:
        """Prepare to train `rest["model"]`.

        Args:
            teacher: provides the targets of each micro-batch's tokens.
            divergence: divergence to minimise; `reverse` and `jsd` need an `exact` teacher.
            jsd_beta: beta of `jsd`.
            average: whether a step's loss is a mean over tokens or over sequences.
            on_policy_completions: chooses the on-policy steps and samples their completions; None: no such steps.
            reward_weight: weight of the reward's objective, in [0, 1]; the divergence has weight 1 - reward_weight.
            rest: arguments of transformers' Trainer.
        """
        super().__init__(data_collator=list, **rest)
        self.teacher, self.divergence, self.jsd_beta, self.average = teacher, divergence, jsd_beta, average
        self.on_policy_completions, self.reward_weight = on_policy_completions, reward_weight
        self.loss_is_scaled_for_ga = True
        self._sums: dict[str, tuple[float, int]] = {}  # name -> (sum, count) of this process since the last log
        self._of_steps: dict[str, list[float]] = defaultdict(
            list
        )  # values per step since the last log, equal in every process

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Rows], int]:
        """Return the micro-batches of one optimiser step and its number of tokens or sequences, over all processes.

        On-policy steps replace the demonstrations by completions here, before the first forward pass of the step.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        step = self.state.global_step
        if self.on_policy_completions is not None and batches:
            due = self.on_policy_completions.is_due(step)
            self._of_steps["on_policy"].append(float(due))
            if due:
                with whole(self.model_wrapped):
                    batches, metrics = self.on_policy_completions.replace_completions(batches, step)
                for name, value in metrics.items():
                    self._of_steps[name].append(value)
        return batches, self._get_num_items_in_batch(batches, device)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> int:
        """Return the number of completion tokens, or sequences, of the optimiser step over all processes."""
        rows = [row for batch in batch_samples for row in batch]
        own = len(rows) if self.average == "sequences" else sum(len(row["completion"]) for row in rows)
        return int(self.accelerator.gather(torch.tensor(own, device=device)).sum())

    def compute_loss(
        self,
        model: Any,
        inputs: Rows,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """Return this micro-batch's share of the step's loss: the divergence minus the REINFORCE objective."""
        rows = [TeacherRow(row["prompt"], row["completion"], row["number"], row.get("task")) for row in inputs]
        targets = self.teacher.targets(rows, [seed for row in inputs for seed in self._seeds(row)])
        lowered: SampledDivergence | WholeDivergence
        if self.divergence == "forward":
            lowered = SampledDivergence(targets)
        else:
            lowered = WholeDivergence(targets, self.divergence, self.jsd_beta)
        weight_S, besides_S = self._weights(inputs)
        prompts, completions = [row.prompt for row in rows], [row.completion for row in rows]
        # The divergence is at temperature 1 for whatever completions; REINFORCE needs the sampled distribution.
        heat = 1.0 if self.on_policy_completions is None else self.on_policy_completions.sampling.temperature
        total, scores = weighted_logprobs(
            model, prompts, completions, weight_S, lowered.objective, True, besides_S, temperature=heat
        )
        self._watch(lowered.watched(scores), own="place" in inputs[0])
        return -total / num_items_in_batch * self.accelerator.num_processes

    def _weights(self, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """Return weights, [S], of each sequence's divergence and log-probability, before division by the count."""
        pooled = self.average == "tokens"
        share_S = torch.tensor([1.0 if pooled else 1.0 / len(row["completion"]) for row in rows])
        if self.on_policy_completions is None or not self.on_policy_completions.rewards.terms:
            return share_S, None
        share_S *= 1.0 - self.reward_weight
        if "place" not in rows[0]:
            return share_S, None
        # The reward is always averaged over sequences. With `average: tokens` the loss is divided by the number of
        # tokens, and the factor `mean_length` turns that into a division by the number of sequences.
        each = [row["advantage"] * (row["mean_length"] if pooled else 1.0) for row in rows]
        return share_S, self.reward_weight * torch.tensor(each)

    def _seeds(self, row: dict[str, Any]) -> list[int]:
        """Return one sampling seed per completion token of a row; independent of process and micro-batch."""
        which = f"place {row['place']}" if "place" in row else f"row {row['number']}"
        source = random.Random(f"{self.args.seed}, step {self.state.global_step}, {which}")
        return [source.getrandbits(63) for _ in row["completion"]]

    def _watch(self, found: Watched, own: bool) -> None:
        """Add to the sums of the next log."""
        seen = {"kl_from_teacher": found.kl_M, "entropy": found.entropy_M, "agreement": found.agrees_M.float()}
        if own:
            seen["teacher_logprob"] = found.own_M[~found.own_M.isnan()]
        for name, values in seen.items():
            before, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = before + values.sum(dtype=torch.float64).item(), count + len(values)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log with the means since the last log added: over the tokens of all processes, or over steps."""
        means = {**token_means(from_all(self._sums)), **{name: sum(v) / len(v) for name, v in self._of_steps.items()}}
        self._sums = {}
        self._of_steps.clear()
        super().log({**logs, **means}, *args, **kwargs)
