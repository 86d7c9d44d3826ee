"""What an algorithm is given and what it answers: rollouts in, weighted sequences and metrics out."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor

from policy.policy import Policy
from policy.samplers.contract import Weights
from rl.config import RolloutConfig


@dataclass(frozen=True)
class Draw:
    """Completions that one set of weights gave to P prompts, N for each.

    `ids` is prompt-major, P * N entries. Log-probabilities are of whole completions at temperature 1, in nats.
    `logprob_PN` is under the live policy, `anchor_logprob_PN` and `initial_logprob_PN` under the EMA anchor and the
    initial policy; the last two are None where the algorithm did not ask for them. `importance_PN` is the probability
    of each completion under what it should have been drawn from over that under what the sampler drew it from; None
    where the sampler has the trainer's own weights.
    """

    ids: list[list[int]]
    reward_PN: Tensor
    logprob_PN: Tensor | None = None
    anchor_logprob_PN: Tensor | None = None
    initial_logprob_PN: Tensor | None = None
    importance_PN: Tensor | None = None


@dataclass(frozen=True)
class Rollouts:
    """One step's completions from the policy and, where the algorithm draws from it, from the anchor."""

    prompts: list[list[int]]
    policy: Draw
    anchor: Draw | None = None


@dataclass(frozen=True)
class Weighted:
    """One completion with the constant that its log-probability is multiplied by in the objective to be raised."""

    prompt: list[int]
    completion: list[int]
    weight: float


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

    `draws` says how many completions for each prompt it wants from the policy and from the anchor. The flags say which
    log-probabilities of the policy's completions it reads. After every `anchor_every` steps the anchor goes to the
    policy by `anchor_rate`: 0 never, 1 all the way. `beside` is what it trains itself, None for most.
    """

    draws: Mapping[Weights, int]
    anchor_rate: float
    anchor_every: int
    beside: Learner | None
    needs_anchor_logprob: bool
    needs_initial_logprob: bool

    def weigh(self, rollouts: Rollouts) -> tuple[list[Weighted], dict[str, float]]:
        """The sequences to learn from, and metrics of the step."""


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


def corrected(weight_PN: Tensor, draw: Draw, cap: float | None) -> tuple[Tensor, dict[str, float]]:
    """Weights times the importance of each completion, truncated at `cap`; unchanged without a cap or a mismatch.

    The metrics are the mean importance, before it is truncated, and the share of completions where it was.
    """
    if cap is None or draw.importance_PN is None:
        return weight_PN, {}
    truncated_PN = draw.importance_PN > cap
    metrics = {"importance": draw.importance_PN.mean().item(), "truncated": truncated_PN.float().mean().item()}
    return weight_PN * draw.importance_PN.clamp(max=cap), metrics


def tie_rate(reward_PN: Tensor) -> float:
    """Share of pairs of completions of one prompt that have equal rewards."""
    samples = reward_PN.shape[1]
    pairs = torch.triu_indices(samples, samples, offset=1)
    return (reward_PN[:, pairs[0]] == reward_PN[:, pairs[1]]).float().mean().item()
