"""Seconds and tokens per second of each phase of a step: drawing, rewards, log-probabilities, learning."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add what passes inside to the seconds of that name."""
    start = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - start


def tokens_in(completions: Sequence[Sequence[int]]) -> int:
    """Tokens of all completions together."""
    return sum(len(ids) for ids in completions)


def rates(counts: Mapping[str, int], seconds: Mapping[str, float], unit: str = "tokens") -> dict[str, float]:
    """`PHASE_UNIT_per_second` of each phase that is counted; none for a phase that took no time."""
    return {
        f"{phase}_{unit}_per_second": count / seconds[phase] for phase, count in counts.items() if seconds[phase] > 0
    }


class StepTimer(TrainerCallback):
    """Times optimiser steps; what it measured is for the next line of the log.

    `step_seconds` is from the step's beginning until the anchor has moved, without logs and checkpoints;
    `learning_seconds` what its forward and backward passes and the optimiser took. `tokens_per_second` are the
    completion tokens of a rollout over the seconds of all steps that learn from it, measured at the last of them.
    A step's times begin with it, so that nothing needs to be kept in a checkpoint: those fall between rollouts.
    """

    def __init__(self) -> None:
        self._measured: dict[str, list[float]] = defaultdict(list)
        self._step = self._learning = self._rollout_seconds = 0.0
        self._rollout_tokens = self._learning_tokens = 0
        self._last = True

    def begin_step(self) -> None:
        """A step begins, before anything is drawn for it."""
        if self._last:
            self._rollout_tokens, self._rollout_seconds = 0, 0.0
        self._step = time.perf_counter()

    def add_rollout(self, tokens: int) -> None:
        """A rollout of so many completion tokens, of policy and anchor, is there."""
        self._rollout_tokens = tokens

    def begin_learning(self, tokens: int, last: bool) -> None:
        """Learning from so many completion tokens, of all processes, begins; `last`: no later step has the rollout."""
        self._learning_tokens, self._last = tokens, last
        self._learning = time.perf_counter()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """The optimiser has stepped."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # kernels run behind; a wait a step is nothing beside its passes
        seconds = {"learning": time.perf_counter() - self._learning}
        self._measured["learning_seconds"].append(seconds["learning"])
        for name, rate in rates({"learning": self._learning_tokens}, seconds).items():
            self._measured[name].append(rate)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """The step is over; add this callback behind the one that moves the anchor."""
        seconds = time.perf_counter() - self._step
        self._rollout_seconds += seconds
        self._measured["step_seconds"].append(seconds)
        if self._last:
            self._measured["tokens_per_second"].append(self._rollout_tokens / self._rollout_seconds)

    def pop_means(self) -> dict[str, float]:
        """The mean of each over the steps since the last call."""
        means = {name: sum(values) / len(values) for name, values in self._measured.items()}
        self._measured.clear()
        return means
