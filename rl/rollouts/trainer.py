"""The training loop of every algorithm that learns from its own samples, blind to which algorithm it is."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

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
    """Rolls out the prompts of one or more optimiser steps together, then learns from sequences in micro-batches."""

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
        **rest: Any,
    ):
        """Train `rest["model"]` on `examples`; `seed` varies the samples, `shown` receives some of them.

        With `overlap` the next rollout's completions are drawn while this one is rewarded and learnt from. `ties` is
        shown each rollout's share of tied rewards. A rollout has the prompts of `updates` optimiser steps, which learn
        from them in turn.
        """
        super().__init__(train_dataset=_Indices(len(examples)), data_collator=_stack, **rest)
        self.collector, self.examples, self.seed, self.shown = collector, examples, seed, shown
        self.overlap, self.ties, self.updates = overlap, ties, updates
        self._left: list[tuple[list[Weighted], Rollouts]] = []
        self._ahead: tuple[list[Any], list[Example]] | None = None
        self.model_accepts_loss_kwargs = False
        self._rollout_metrics: dict[str, list[float]] = defaultdict(list)
        self._token_metrics: dict[str, tuple[float, int]] = {}
        self._timer = StepTimer()
        self.add_callback(_CollectorCallback(collector))
        self.add_callback(self._timer)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], None]:
        """The micro-batches of one optimiser step: its part of the rollout, dealt out; the first step's draws it.

        Prompts, completions and weights are those of the whole step, over all processes, whatever their number.
        """
        self._timer.begin_step()
        if not self._left:
            self._left = self._rolled_out(epoch_iterator, num_batches * self.updates, device)
        sequences, rollouts = self._left.pop(0)
        processes = self.args.world_size
        hands = deal(sequences, rollouts, num_batches * processes)
        hands = hands[self.args.process_index * num_batches :][:num_batches]
        self._timer.begin_learning(tokens_in([each.completion for each in sequences]), last=not self._left)
        return [{"sequences": hand, "parts": num_batches * processes} for hand in hands], None

    def _rolled_out(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> list[tuple[list[Weighted], Rollouts]]:
        """Roll out the prompts of the next `updates` steps, and weigh the completions of each step."""
        _, examples = self._ahead or self._next(epoch_iterator, num_batches, device)
        self._ahead = self._next(epoch_iterator, num_batches, device) if self.overlap else None
        ahead = self._ahead[1] if self._ahead else []
        seed = seed_of_step(self.seed, self.state.global_step // self.updates)
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
        """This process's micro-batches of one rollout, and its examples over all processes; behind the last: none.

        The data is one pass, step after step (`data_order`), so that no epoch ends between a step and the next.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        indices = from_all([batch["index"].tolist() for batch in batches])
        return batches, [self.examples[i] for batch in range(len(batches)) for each in indices for i in each[batch]]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """-sum(weight * log pi) of one micro-batch, or the algorithm's own loss of its tokens.

        The Trainer's division by the number of parts is undone.
        """
        sequences: list[Weighted] = inputs["sequences"]
        if not sequences:  # every weight was zero: nothing to learn, but a graph for the engine to walk
            return sum(parameter.sum() for parameter in model.parameters() if parameter.requires_grad) * 0.0
        prompts, completions = [each.prompt for each in sequences], [each.completion for each in sequences]
        algorithm = self.collector.algorithm
        if isinstance(algorithm, TokenLoss):
            logprobs_ST, _ = token_logprobs(model, prompts, completions)
            loss, seen = algorithm.token_loss(logprobs_ST, sequences)
            for name, values in seen.items():
                before, tokens = self._token_metrics.get(name, (0.0, 0))
                self._token_metrics[name] = (before + values.sum().item(), tokens + values.numel())
            return loss * inputs["parts"]
        total, _ = weighted_logprobs(
            model, prompts, completions, torch.tensor([sequence.weight for sequence in sequences])
        )
        return -total * inputs["parts"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add means since the last line: of the rollouts' metrics, of times, and over the tokens of all processes."""
        means = {name: sum(values) / len(values) for name, values in self._rollout_metrics.items()}
        self._rollout_metrics.clear()
        means |= self._timer.pop_means()
        if isinstance(self.collector.algorithm, TokenLoss):
            means |= token_means(from_all(self._token_metrics))
            self._token_metrics = {}
        super().log({**logs, **means}, *args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load the anchor and what is trained beside; here, as the model has been loaded by now, DeepSpeed or not."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.collector.anchor is not None:
            self.collector.anchor.load(Path(checkpoint) / ANCHOR)
        if checkpoint is not None and self.collector.algorithm.auxiliary_learner is not None:
            self.collector.algorithm.auxiliary_learner.load(Path(checkpoint))
        if checkpoint is not None and self.collector.running:
            kept = json.loads((Path(checkpoint) / RUNNING).read_text())
            self.collector.running = {name: Moments(**moments) for name, moments in kept.items()}

    def _write_shown(self) -> None:
        with self.shown.open("a") as file:
            for row in self.collector.shown:
                file.write(json.dumps({"step": self.state.global_step, **row}) + "\n")


def deal(sequences: Sequence[Weighted], rollouts: Rollouts, hands: int) -> list[list[Weighted]]:
    """The sequences of a step dealt out evenly; a hand that would be empty gets a completion of weight 0.

    No hand may be empty: under ZeRO-3 and DDP every process must run the model as often as the others.
    """
    return [list(sequences[hand::hands]) or [rollouts.blank()] for hand in range(hands)]


def _means(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric over the parts of a rollout that have it."""
    found = {name: [each[name] for each in metrics if name in each] for each in metrics for name in each}
    return {name: sum(values) / len(values) for name, values in found.items()}


def token_means(sums: Sequence[dict[str, tuple[float, int]]]) -> dict[str, float]:
    """The mean of each metric over tokens, from each process's sum and number of tokens."""
    means = {}
    for name in sorted({name for each in sums for name in each}):
        totals, tokens = zip(*(each.get(name, (0.0, 0)) for each in sums), strict=True)
        if sum(tokens):
            means[name] = sum(totals) / sum(tokens)
    return means


class _CollectorCallback(TrainerCallback):
    """Cuts the sets as the model was cut, moves the anchor when it is time, and keeps in checkpoints what moves."""

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
    """The numbers of the prompts; the trainer looks the prompts up."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


def _stack(indices: list[int]) -> dict[str, Tensor]:
    return {"index": torch.tensor(indices)}
