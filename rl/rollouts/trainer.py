"""Training loop for all algorithms that learn from the policy's own samples; it knows none of them by name."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gemsmith.contracts.reading import reading
from gemsmith.contracts.seeds import seed_of_step
from gemsmith.curation.example import Example
from gemsmith.policy.head.logprobs import token_logprobs, weighted_logprobs
from gemsmith.policy.training.processes import from_all
from gemsmith.policy.training.sharding import whole
from gemsmith.rl.algorithms.algorithm import Rollouts, TokenLoss, Weighted
from gemsmith.rl.rewards.contributions import Moments
from gemsmith.rl.rollouts.rollout import RolloutCollector
from gemsmith.rl.rollouts.step_timer import StepTimer, tokens_in
from gemsmith.rl.rollouts.ties import TieWatch

ANCHOR = "anchor.safetensors"
RUNNING = "rewards.json"


class RolloutTrainer(Trainer):
    """Trainer that rolls out the prompts of one or more optimiser steps at once and learns in micro-batches."""

    def __init__(
        self,
        *,
        collector: RolloutCollector,
        examples: Sequence[Example],
        seed: int,
        shown: Path,
        overlap: bool = False,
        ties: TieWatch | None = None,
        updates: int = 1,
        marks: Mapping[str, Any] | None = None,
        **rest: Any,
    ):
        """Train `rest["model"]` on `examples`.

        Args:
            collector: samples and scores the completions of a batch of prompts.
            examples: prompts of the run.
            seed: seed of the sampled completions.
            shown: file to which example completions are appended.
            overlap: sample the next rollout's completions while this one is rewarded and learned from.
            ties: monitor that receives each rollout's tie rate.
            updates: optimiser steps per rollout; each learns from its share of the rollout's prompts.
            marks: fields that mark the example completions of one of a stage's several trainings.
            rest: arguments of `transformers.Trainer`.
        """
        super().__init__(train_dataset=_Indices(len(examples)), data_collator=_stack, **rest)
        self.collector, self.examples, self.seed, self.shown = collector, examples, seed, shown
        self.overlap, self.ties, self.updates, self.marks = overlap, ties, updates, dict(marks or {})
        # Parts of the current rollout that the next optimiser steps will learn from.
        self._left: list[tuple[list[Weighted], Rollouts]] = []
        # The next rollout's micro-batches and examples, read early so that their completions can be sampled.
        self._ahead: tuple[list[Any], list[Example]] | None = None
        # False makes the Trainer divide each loss by the number of micro-batches, which `compute_loss` undoes.
        self.model_accepts_loss_kwargs = False
        self._rollout_metrics: dict[str, list[float]] = defaultdict(list)
        self._token_metrics: dict[str, tuple[float, int]] = {}
        self._timer = StepTimer()
        self.add_callback(_CollectorCallback(collector))
        self.add_callback(self._timer)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], None]:
        """Return this process's micro-batches of one optimiser step, after a new rollout if none is left.

        Every process holds the prompts, completions and weights of the whole step and takes its share of the sequences,
        so that results do not depend on the number of processes.
        """
        self._timer.begin_step()
        if not self._left:
            self._left = self._rolled_out(epoch_iterator, num_batches * self.updates, device)
        sequences, rollouts = self._left.pop(0)
        processes = self.args.world_size
        parts = deal(sequences, rollouts, num_batches * processes)
        parts = parts[self.args.process_index * num_batches :][:num_batches]
        self._timer.begin_learning(tokens_in([each.completion for each in sequences]), last=not self._left)
        return [{"sequences": part, "parts": num_batches * processes} for part in parts], None

    def _rolled_out(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> list[tuple[list[Weighted], Rollouts]]:
        """Roll out the prompts of the next `updates` steps, and weigh the completions of each step."""
        # With overlap, these examples were read during the rollout before, and the collector already has their samples.
        _, examples = self._ahead or self._next(epoch_iterator, num_batches, device)
        self._ahead = self._next(epoch_iterator, num_batches, device) if self.overlap else None
        ahead = self._ahead[1] if self._ahead else []
        seed = seed_of_step(self.seed, self.state.global_step // self.updates)
        # Under ZeRO-3 each process holds a shard of the weights; sampling and scoring need all of them.
        with whole(self.model_wrapped):
            rollouts, metrics = self.collector.collect(examples, seed, self.args.world_size, ahead)
        self._timer.add_rollout(
            sum(tokens_in(draw.ids) for draw in (rollouts.policy, rollouts.anchor) if draw is not None)
        )
        parts = rollouts.parts(self.updates)
        weighed = [self.collector.algorithm.weigh(part) for part in parts]
        more = _means([each for _, each in weighed])
        if self.ties is not None:
            self.ties.see(more["tie_rate"])
        for name, value in (metrics | more).items():
            self._rollout_metrics[name].append(value)
        if self.state.global_step % self.args.save_steps == 0 and self.is_world_process_zero():
            self._write_shown()
        return [(sequences, part) for (sequences, _), part in zip(weighed, parts, strict=True)]

    def _next(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], list[Example]]:
        """Return this process's micro-batches of the next rollout, and the rollout's examples of all processes.

        Both are empty after the last rollout. The whole run is one epoch (`data_order`), so no epoch ends between two
        steps.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        # The sampler of the data gives micro-batches to the processes in turn; this restores the data's order.
        indices = from_all([batch["index"].tolist() for batch in batches])
        return batches, [self.examples[i] for batch in range(len(batches)) for each in indices for i in each[batch]]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Return -sum(weight * log pi) of one micro-batch, or the algorithm's own `token_loss`.

        Log-probabilities are at the temperature that the completions were sampled at.

        The factor `parts` undoes the division by the number of micro-batches and processes, because the weights already
        contain the step's normalisation.
        """
        sequences: list[Weighted] = inputs["sequences"]
        if not sequences:  # all weights are zero: the loss is 0 but still needs a graph for the backward pass
            return sum(parameter.sum() for parameter in model.parameters() if parameter.requires_grad) * 0.0
        prompts, completions = [each.prompt for each in sequences], [each.completion for each in sequences]
        algorithm, heat = self.collector.algorithm, self.collector.sampling.temperature
        if isinstance(algorithm, TokenLoss):
            logprobs_ST, _ = token_logprobs(model, prompts, completions, heat)
            loss, token_metrics = algorithm.token_loss(logprobs_ST, sequences)
            for name, values in token_metrics.items():
                before, tokens = self._token_metrics.get(name, (0.0, 0))
                self._token_metrics[name] = (before + values.sum().item(), tokens + values.numel())
            return loss * inputs["parts"]
        weight_S = torch.tensor([sequence.weight for sequence in sequences])
        total, _ = weighted_logprobs(model, prompts, completions, weight_S, temperature=heat)
        return -total * inputs["parts"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the means since the last log line: rollout metrics, timings, and token metrics of all processes."""
        means = {name: sum(values) / len(values) for name, values in self._rollout_metrics.items()}
        self._rollout_metrics.clear()
        means |= self._timer.pop_means()
        if isinstance(self.collector.algorithm, TokenLoss):
            means |= token_means(from_all(self._token_metrics))
            self._token_metrics = {}
        super().log({**logs, **means}, *args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Also load the anchor, the auxiliary learner and the running reward statistics from the checkpoint.

        The Trainer calls this after it has loaded the model, with and without DeepSpeed.
        """
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.collector.anchor is not None:
            self.collector.anchor.load(Path(checkpoint) / ANCHOR)
        if checkpoint is not None and self.collector.algorithm.auxiliary_learner is not None:
            self.collector.algorithm.auxiliary_learner.load(Path(checkpoint))
        if checkpoint is not None and self.collector.running:
            path = Path(checkpoint) / RUNNING
            with reading(path, "the running statistics of rewards", "delete the checkpoint that it is in"):
                kept = json.loads(path.read_text())
                self.collector.running = {name: Moments(**moments) for name, moments in kept.items()}

    def _write_shown(self) -> None:
        with self.shown.open("a") as file:
            for row in self.collector.shown:
                file.write(json.dumps({"step": self.state.global_step, **self.marks, **row}) + "\n")


def deal(sequences: Sequence[Weighted], rollouts: Rollouts, hands: int) -> list[list[Weighted]]:
    """Split the sequences of a step into `hands` parts of nearly equal size, with a blank completion in empty parts.

    No part may be empty: under ZeRO-3 and DDP all processes must run the model equally often.
    """
    return [list(sequences[part::hands]) or [rollouts.blank()] for part in range(hands)]


def _means(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over the parts of a rollout that have it."""
    by_name = {name: [part[name] for part in metrics if name in part] for part in metrics for name in part}
    return {name: sum(values) / len(values) for name, values in by_name.items()}


def token_means(sums: Sequence[dict[str, tuple[float, int]]]) -> dict[str, float]:
    """Return the mean of each metric over the tokens of all processes, from each process's (sum, number of tokens)."""
    means = {}
    for name in sorted({name for each in sums for name in each}):
        totals, tokens = zip(*(each.get(name, (0.0, 0)) for each in sums), strict=True)
        if sum(tokens):
            means[name] = sum(totals) / sum(tokens)
    return means


class _CollectorCallback(TrainerCallback):
    """Callback that shards the weight sets like the model, updates the anchor, and saves the state in checkpoints."""

    def __init__(self, collector: RolloutCollector) -> None:
        self.collector = collector

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.collector.initial.shard()
        if self.collector.anchor is not None:
            self.collector.anchor.shard()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        anchor, rate = self.collector.anchor, self.collector.algorithm.anchor_rate
        if anchor is not None and rate and state.global_step % self.collector.algorithm.anchor_every == 0:
            anchor.update(rate)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self.collector.anchor is not None:
            self.collector.anchor.save(folder / ANCHOR)
        if self.collector.algorithm.auxiliary_learner is not None:
            self.collector.algorithm.auxiliary_learner.save(folder)
        if self.collector.running and state.is_world_process_zero:
            running = {name: asdict(moments) for name, moments in self.collector.running.items()}
            (folder / RUNNING).write_text(json.dumps(running))


class _Indices(Dataset[int]):
    """Dataset of prompt indices; the trainer looks the prompts up itself."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


def _stack(indices: list[int]) -> dict[str, Tensor]:
    return {"index": torch.tensor(indices)}
