"""Timing of a step's phases (sampling, rewards, log-probabilities, learning) in seconds and tokens per second."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the duration of the block to `seconds[name]`."""
    start = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - start


def tokens_in(completions: Sequence[Sequence[int]]) -> int:
    """Return the total number of tokens of the completions."""
    return sum(len(ids) for ids in completions)


def rates(counts: Mapping[str, int], seconds: Mapping[str, float], unit: str = "tokens") -> dict[str, float]:
    """Return `PHASE_UNIT_per_second` for each phase in `counts`; a phase that took 0 seconds is omitted."""
    return {
        f"{phase}_{unit}_per_second": count / seconds[phase] for phase, count in counts.items() if seconds[phase] > 0
    }


class StepTimer(TrainerCallback):
    """Timer of optimiser steps; `pop_means` returns the measurements for the next log line.

    `step_seconds` is the time from the start of a step until the anchor has moved, without logging and checkpoints;
    `learning_seconds` is the time of the forward and backward passes and the optimiser. `tokens_per_second` is the
    number of completion tokens of a rollout divided by the seconds of all steps that learn from it, measured at the
    last of them. Checkpoints are aligned to rollouts, so no measurement has to be saved in one.
    """

    def __init__(self) -> None:
        self._measured: dict[str, list[float]] = defaultdict(list)
        self._step = self._learning = self._rollout_seconds = 0.0
        self._rollout_tokens = self._learning_tokens = 0
        self._last = True

    def begin_step(self) -> None:
        """Start timing a step; call this before anything is sampled for it."""
        # Several steps may learn from one rollout: its tokens and seconds add up until the last of them.
        if self._last:
            self._rollout_tokens, self._rollout_seconds = 0, 0.0
        self._step = time.perf_counter()

    def add_rollout(self, tokens: int) -> None:
        """Record the number of completion tokens of a new rollout, from policy and anchor together."""
        self._rollout_tokens = tokens

    def begin_learning(self, tokens: int, last: bool) -> None:
        """Start timing the learning phase.

        Args:
            tokens: completion tokens that the step learns from, over all processes.
            last: True if no later step learns from the same rollout.
        """
        self._learning_tokens, self._last = tokens, last
        self._learning = time.perf_counter()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Record the duration of the learning phase."""
        if torch.cuda.is_available():
            # CUDA kernels run asynchronously; one synchronisation per step costs little next to its passes.
            torch.cuda.synchronize()
        seconds = {"learning": time.perf_counter() - self._learning}
        self._measured["learning_seconds"].append(seconds["learning"])
        for name, rate in rates({"learning": self._learning_tokens}, seconds).items():
            self._measured[name].append(rate)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Record the duration of the step; register this callback after the one that moves the anchor."""
        seconds = time.perf_counter() - self._step
        self._rollout_seconds += seconds
        self._measured["step_seconds"].append(seconds)
        if self._last:
            self._measured["tokens_per_second"].append(self._rollout_tokens / self._rollout_seconds)

    def pop_means(self) -> dict[str, float]:
        """Return the mean of each measurement over the steps since the last call, and reset them."""
        means = {name: sum(values) / len(values) for name, values in self._measured.items()}
        self._measured.clear()
        return means
