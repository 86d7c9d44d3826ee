"""What an algorithm is given and what it answers: rollouts in, weighted sequences and metrics out."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, Self, cast, runtime_checkable

import torch
from torch import Tensor

from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.contract import Weights
from gemsmith.rl.algorithms.rollout_config import RolloutConfig


@dataclass(frozen=True)
class Completions:
    """Completions that one set of weights gave to P prompts, N for each, before they have a reward to learn.

    `ids` is prompt-major, P * N entries. Log-probabilities are of whole completions at temperature 1, in nats.
    `logprob_PN` is under the live policy, `anchor_logprob_PN` and `initial_logprob_PN` under the EMA anchor and the
    initial policy; the anchor's is None where the algorithm did not ask for it. `importance_PN` is the probability of
    each completion under what it should have been drawn from over that under what the sampler drew it from; None
    where the sampler has the trainer's own weights. `finished_PN` is false where a completion was cut off.

    `tokens`, `anchor_tokens` and `initial_tokens` are the same log-probabilities token by token, [T] for each
    completion, for algorithms with a `TokenLoss`; None for the others.
    """

    ids: list[list[int]]
    logprob_PN: Tensor | None = None
    anchor_logprob_PN: Tensor | None = None
    initial_logprob_PN: Tensor | None = None
    importance_PN: Tensor | None = None
    finished_PN: Tensor | None = None
    tokens: list[Tensor] | None = None
    anchor_tokens: list[Tensor] | None = None
    initial_tokens: list[Tensor] | None = None

    def rewarded(self, learnt_reward_PN: Tensor) -> "Draw":
        """Return the completions with the rewards that an algorithm learns from."""
        return Draw(learnt_reward_PN=learnt_reward_PN, **{f.name: getattr(self, f.name) for f in fields(Completions)})

    @classmethod
    def joined(cls, draws: Sequence[Self]) -> Self:
        """Join the completions of several processes' prompts, in order; undoes `Draw.of_prompts`."""

        def join(values: list[Any]) -> Any:
            if values[0] is None:
                return None
            return [item for value in values for item in value] if isinstance(values[0], list) else torch.cat(values)

        return cls(**{field.name: join([getattr(draw, field.name) for draw in draws]) for field in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class Draw(Completions):
    """Completions with the reward that is learnt: the weighted sum after normalising, clipping and gates, [P, N]."""

    learnt_reward_PN: Tensor

    def of_prompts(self, prompts: slice) -> "Draw":
        """The completions of some of the prompts."""
        n = self.learnt_reward_PN.shape[1]
        rows = slice(prompts.start * n, prompts.stop * n)

        def cut(value: Any) -> Any:
            return value[rows] if isinstance(value, list) else value if value is None else value[prompts]

        return Draw(**{field.name: cut(getattr(self, field.name)) for field in fields(Draw)})


@dataclass(frozen=True)
class Weighted:
    """One completion with the constant that its log-probability is multiplied by in the objective to be raised.

    For a `TokenLoss` the weight is the ratio's, `kl` that of the KL to be lowered, and there are the log-probabilities
    of the tokens, [T], under the policy that drew (none: the live one) and under the reference.
    """

    prompt: list[int]
    completion: list[int]
    weight: float
    kl: float = 0.0
    drawn: Tensor | None = None
    reference: Tensor | None = None


@dataclass(frozen=True)
class Rollouts:
    """One step's completions from the policy and, where the algorithm draws from it, from the anchor."""

    prompts: list[list[int]]
    policy: Draw
    anchor: Draw | None = None

    def parts(self, count: int) -> "list[Rollouts]":
        """The rollouts cut, prompt by prompt, for each of the optimiser steps that learn from them."""
        cuts = [len(self.prompts) * part // count for part in range(count + 1)]
        return [self._of_prompts(slice(start, end)) for start, end in pairwise(cuts)] if count > 1 else [self]

    def blank(self) -> Weighted:
        """A completion that teaches nothing."""
        return Weighted(self.prompts[0], self.policy.ids[0], 0.0)

    def _of_prompts(self, prompts: slice) -> "Rollouts":
        anchor = None if self.anchor is None else self.anchor.of_prompts(prompts)
        return Rollouts(self.prompts[prompts], self.policy.of_prompts(prompts), anchor)


class Learner(Protocol):
    """What an algorithm trains beside the policy; the trainer begins it and keeps it in checkpoints."""

    def begin(self, policy: Policy, seed: int) -> None:
        """Start from the initial policy, which has no adapters yet."""

    def save(self, folder: Path) -> None:
        """Write into a checkpoint's folder all that a continued run needs to be the uninterrupted one."""

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""


class Algorithm(Protocol):
    """Turns the rollouts of one step into weighted sequences; the trainer raises sum(weight * log pi(completion)).

    `draws` says how many completions for each prompt it wants from the policy and from the anchor.
    `needs_anchor_logprob` says whether it reads the log-probabilities of the policy's completions under the anchor;
    those under the initial policy are always there. After every `anchor_every` steps the anchor goes to the policy by
    `anchor_rate`: 0 never, 1 all the way. `auxiliary_learner` is what it trains itself, None for most.
    """

    draws: Mapping[Weights, int]
    anchor_rate: float
    anchor_every: int
    auxiliary_learner: Learner | None
    needs_anchor_logprob: bool

    def weigh(self, rollouts: Rollouts) -> tuple[list[Weighted], dict[str, float]]:
        """Return the sequences to learn from, and metrics of the step, among them `tie_rate`.

        The algorithm applies `importance_cap` itself (`truncate_importance`); the trainer does not. `rollouts` are
        those of one optimiser step: where several learn from one rollout, the trainer cuts it by prompts.
        """


@runtime_checkable
class TokenLoss(Protocol):
    """What an algorithm has besides when its loss is not linear in the log-probabilities.

    Rollouts then hold the log-probabilities of each token, and the trainer lowers this loss of a micro-batch's
    sequences in place of the weighted sum, which is cheaper under a trained vocabulary head.
    """

    def token_loss(self, logprobs_ST: Tensor, sequences: Sequence[Weighted]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, summed over the sequences, and for each metric the values that the trainer averages.

        The values of a metric are one for each token or one for each sequence. One call sees a micro-batch, so a factor
        such as one over the number of completions belongs in the weights that `weigh` gives. `sequences` may hold a
        completion of weight 0 without `drawn` and `reference` (`Rollouts.blank`), whose loss must be 0.

        Args:
            logprobs_ST: log-probabilities of the completions under the live policy, differentiable, 0 after their ends;
                on the model's device.
            sequences: what `weigh` returned for these completions; their tensors are on the CPU.
        """


def build(config: RolloutConfig) -> Algorithm:
    """The algorithm that a configuration names in its class attribute `algorithm`, a class or a function."""
    module, _, name = config.algorithm.partition(":")
    return cast(Algorithm, getattr(importlib.import_module(module), name)(config))


def leave_one_out(value_S: Tensor) -> Tensor:
    """Each value minus the mean of the others along the last dimension, which must hold at least two."""
    others = value_S.shape[-1] - 1
    return value_S - (value_S.sum(dim=-1, keepdim=True) - value_S) / others


def weighted(prompts: list[list[int]], ids: list[list[int]], weight_PN: Tensor) -> list[Weighted]:
    """Pair P * N prompt-major completions with their prompts and weights; those of weight 0 are left out."""
    samples = weight_PN.shape[1]
    flat = weight_PN.flatten().tolist()
    return [
        Weighted(prompts[i // samples], completion, weight)
        for i, (completion, weight) in enumerate(zip(ids, flat, strict=True))
        if weight != 0.0
    ]


def truncate_importance(weight_PN: Tensor, draw: Draw, cap: float | None) -> tuple[Tensor, dict[str, float]]:
    """Weights times the importance of each completion, truncated at `cap`; unchanged without a cap or a mismatch.

    The metrics are the mean importance, before it is truncated, and the share of completions where it was.
    """
    if cap is None or draw.importance_PN is None:
        return weight_PN, {}
    truncated_PN = draw.importance_PN > cap
    metrics = {"importance": draw.importance_PN.mean().item(), "truncated": truncated_PN.float().mean().item()}
    return weight_PN * draw.importance_PN.clamp(max=cap), metrics


def learnt_metric(learnt_reward_PN: Tensor) -> dict[str, float]:
    """Return the metric `reward_learnt`: the mean of what is learnt from, where it is not the weighted sum as it came.

    The collector logs it after normalising, clipping and gates; an algorithm that changes the rewards further returns
    it again among its own metrics, which come last.
    """
    return {"reward_learnt": learnt_reward_PN.mean().item()}


def tie_rate(reward_PN: Tensor) -> float:
    """Share of pairs of completions of one prompt that have equal rewards."""
    samples = reward_PN.shape[1]
    pairs = torch.triu_indices(samples, samples, offset=1)
    return (reward_PN[:, pairs[0]] == reward_PN[:, pairs[1]]).float().mean().item()
