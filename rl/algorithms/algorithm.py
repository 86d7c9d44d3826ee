"""Interface of an algorithm: it receives rollouts and returns weighted sequences and metrics."""

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
    """Completions sampled from one set of weights for P prompts, N per prompt, before rewards are composed.

    Attributes:
        ids: token ids of the P * N completions, prompt-major.
        logprob_PN: log-probability of each whole completion under the live policy, at the temperature that it was
            sampled at, in nats.
        anchor_logprob_PN: the same under the anchor; None if the algorithm does not need it.
        initial_logprob_PN: the same under the initial policy.
        importance_PN: probability of each completion under the trainer's weights, divided by its probability under
            the weights that the sampler used; None if the sampler uses the trainer's own weights.
        finished_PN: false where a completion was cut off by the length limit.
        tokens: log-probability of each token under the live policy, [T] per completion; only for algorithms with a
            `TokenLoss`, else None.
        anchor_tokens: the same under the anchor.
        initial_tokens: the same under the initial policy.
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
        """Return these completions together with the rewards that an algorithm learns from."""
        return Draw(learnt_reward_PN=learnt_reward_PN, **{f.name: getattr(self, f.name) for f in fields(Completions)})

    @classmethod
    def joined(cls, draws: Sequence[Self]) -> Self:
        """Concatenate the completions of several processes along the prompts; the inverse of `Draw.of_prompts`."""

        def join(values: list[Any]) -> Any:
            if values[0] is None:
                return None
            return [item for value in values for item in value] if isinstance(values[0], list) else torch.cat(values)

        return cls(**{field.name: join([getattr(draw, field.name) for draw in draws]) for field in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class Draw(Completions):
    """Completions with the composed reward: the weighted sum after normalisation, clipping and gates, [P, N]."""

    learnt_reward_PN: Tensor

    def of_prompts(self, prompts: slice) -> "Draw":
        """Return the completions of the prompts in the slice."""
        n = self.learnt_reward_PN.shape[1]
        rows = slice(prompts.start * n, prompts.stop * n)

        def cut(value: Any) -> Any:
            return value[rows] if isinstance(value, list) else value if value is None else value[prompts]

        return Draw(**{field.name: cut(getattr(self, field.name)) for field in fields(Draw)})


@dataclass(frozen=True)
class Weighted:
    """One completion and the constant factor of its log-probability in the objective, which the trainer maximises.

    Attributes:
        prompt: token ids of the prompt.
        completion: token ids of the completion.
        weight: factor of log pi(completion); with a `TokenLoss`, factor of the probability ratio.
        kl: factor of the KL estimate, which is minimised; only used by a `TokenLoss`.
        drawn: log-probabilities of the tokens under the policy that sampled them, [T]; None: the live policy.
        reference: log-probabilities of the tokens under the KL's reference, [T]; None: no KL in the loss.
    """

    prompt: list[int]
    completion: list[int]
    weight: float
    kl: float = 0.0
    drawn: Tensor | None = None
    reference: Tensor | None = None


@dataclass(frozen=True)
class Rollouts:
    """One step's completions from the policy and, if the algorithm samples from it, from the anchor."""

    prompts: list[list[int]]
    policy: Draw
    anchor: Draw | None = None

    def parts(self, count: int) -> "list[Rollouts]":
        """Split the rollouts by prompts into `count` parts, one for each optimiser step that learns from them."""
        cuts = [len(self.prompts) * part // count for part in range(count + 1)]
        return [self._of_prompts(slice(start, end)) for start, end in pairwise(cuts)] if count > 1 else [self]

    def blank(self) -> Weighted:
        """Return a completion of weight 0, which contributes nothing to the loss."""
        return Weighted(self.prompts[0], self.policy.ids[0], 0.0)

    def _of_prompts(self, prompts: slice) -> "Rollouts":
        anchor = None if self.anchor is None else self.anchor.of_prompts(prompts)
        return Rollouts(self.prompts[prompts], self.policy.of_prompts(prompts), anchor)


class Learner(Protocol):
    """A model that an algorithm trains beside the policy; the trainer starts it and saves it in checkpoints."""

    def begin(self, policy: Policy, seed: int) -> None:
        """Initialise from the initial policy, which has no adapters yet."""

    def save(self, folder: Path) -> None:
        """Write into a checkpoint's folder everything that a resumed run needs to match an uninterrupted one."""

    def load(self, folder: Path) -> None:
        """Restore the state that `save` wrote into the folder."""


class Algorithm(Protocol):
    """A rule that turns the rollouts of one step into weighted sequences.

    The trainer maximises sum(weight * log pi(completion)).

    Attributes:
        draws: number of completions per prompt to sample from the policy and from the anchor.
        anchor_rate: interpolation factor of the anchor's update towards the policy, 0 (never moves) to 1 (copies it).
        anchor_every: optimiser steps between two updates of the anchor.
        auxiliary_learner: model that the algorithm trains itself; None for most algorithms.
        needs_anchor_logprob: True if `weigh` reads `anchor_logprob_PN`; `initial_logprob_PN` is always computed.
    """

    draws: Mapping[Weights, int]
    anchor_rate: float
    anchor_every: int
    auxiliary_learner: Learner | None
    needs_anchor_logprob: bool

    def weigh(self, rollouts: Rollouts) -> tuple[list[Weighted], dict[str, float]]:
        """Return the weighted sequences of one optimiser step, and its metrics, which include `tie_rate`.

        The algorithm applies `importance_cap` itself (`truncate_importance`); the trainer does not. If several
        optimiser steps learn from one rollout, the trainer splits it by prompts and calls this once per part.
        """


@runtime_checkable
class TokenLoss(Protocol):
    """Additional method of an algorithm whose loss is not linear in the log-probabilities.

    Rollouts then hold the log-probability of each token, and the trainer minimises this loss for each micro-batch. An
    algorithm with a linear loss should not define it: the weighted sum costs less when the vocabulary head is trained.
    """

    def token_loss(self, logprobs_ST: Tensor, sequences: Sequence[Weighted]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the summed loss, and the values of each metric, which the trainer averages.

        A metric has one value per token or one per sequence. A call receives one micro-batch, so a factor such as one
        over the step's number of completions belongs in the weights that `weigh` returns. `sequences` may contain a
        completion of weight 0 without `drawn` and `reference` (`Rollouts.blank`); its loss must be 0.

        Args:
            logprobs_ST: log-probability of each completion token under the live policy, differentiable, on the model's
                device; 0 at padding.
            sequences: the elements that `weigh` returned for these completions; their tensors are on the CPU.
        """


def build(config: RolloutConfig) -> Algorithm:
    """Build the algorithm that the configuration's class attribute `algorithm` names (a class or a function)."""
    module, _, name = config.algorithm.partition(":")
    return cast(Algorithm, getattr(importlib.import_module(module), name)(config))


def leave_one_out(value_S: Tensor) -> Tensor:
    """Subtract from each value the mean of the others along the last dimension, [..., S] with S >= 2."""
    others = value_S.shape[-1] - 1
    return value_S - (value_S.sum(dim=-1, keepdim=True) - value_S) / others


def weighted(prompts: list[list[int]], ids: list[list[int]], weight_PN: Tensor) -> list[Weighted]:
    """Pair the P * N prompt-major completions with their prompts and weights, omitting those of weight 0."""
    samples = weight_PN.shape[1]
    flat = weight_PN.flatten().tolist()
    return [
        Weighted(prompts[i // samples], completion, weight)
        for i, (completion, weight) in enumerate(zip(ids, flat, strict=True))
        if weight != 0.0
    ]


def truncate_importance(weight_PN: Tensor, draw: Draw, cap: float | None) -> tuple[Tensor, dict[str, float]]:
    """Multiply weights by each completion's importance ratio, truncated at `cap`.

    Returns:
        The weights, [P, N] (unchanged if `cap` is None or the sampler has the trainer's weights), and the metrics
        `importance` (mean ratio before truncation) and `truncated` (share of completions above the cap).
    """
    if cap is None or draw.importance_PN is None:
        return weight_PN, {}
    truncated_PN = draw.importance_PN > cap
    metrics = {"importance": draw.importance_PN.mean().item(), "truncated": truncated_PN.float().mean().item()}
    return weight_PN * draw.importance_PN.clamp(max=cap), metrics


def learnt_metric(learnt_reward_PN: Tensor) -> dict[str, float]:
    """Return the metric `reward_learnt`: the mean composed reward, for stages where it differs from `reward`.

    The collector logs it after normalisation, clipping and gates. An algorithm that changes the rewards further
    returns it again among its own metrics, which override the collector's.
    """
    return {"reward_learnt": learnt_reward_PN.mean().item()}


def tie_rate(reward_PN: Tensor) -> float:
    """Return the share of pairs of completions of the same prompt with equal rewards; `reward_PN` is [P, N]."""
    samples = reward_PN.shape[1]
    pairs = torch.triu_indices(samples, samples, offset=1)
    return (reward_PN[:, pairs[0]] == reward_PN[:, pairs[1]]).float().mean().item()
