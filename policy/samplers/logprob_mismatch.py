"""Check that a sampler has the trainer's weights: its log-probabilities against the trainer's forward pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gemsmith.contracts.errors import UserError
from gemsmith.policy.config import SamplerConfig, SamplingConfig
from gemsmith.policy.head.distribution import processed_logprobs
from gemsmith.policy.head.logprobs import instead_of_logits, right_padded
from gemsmith.policy.head.vocabulary_head import Targets, score
from gemsmith.policy.policy import Policy, evaluating
from gemsmith.policy.samplers.contract import Samples, ScoringSampler, Weights
from gemsmith.policy.weight_set import WeightSet

PROBED = 4  # completions of a handful
PLAIN = SamplingConfig()


@dataclass(frozen=True)
class Gap:
    """Differences between a sampler's log-probabilities of sampled tokens and the trainer's, summed over `tokens`.

    Attributes:
        tokens: number of compared tokens.
        sampler: sum of the sampler's log-probabilities, in nats.
        trainer: sum of the trainer's.
        difference: sum of the absolute differences.
        worst: largest difference; infinite if the trainer's distribution excludes a token.
    """

    tokens: int
    sampler: float
    trainer: float
    difference: float
    worst: float

    def __add__(self, other: "Gap") -> "Gap":
        return Gap(
            self.tokens + other.tokens,
            self.sampler + other.sampler,
            self.trainer + other.trainer,
            self.difference + other.difference,
            max(self.worst, other.worst),
        )

    @property
    def mean(self) -> float:
        """Return the mean absolute difference, in nats per token."""
        return self.difference / max(self.tokens, 1)


@dataclass(frozen=True)
class Scored:
    """The trainer's scores of S sampled completions.

    `logprob_S` are log-probabilities of whole completions at the sampling temperature, `processed_S` those under the
    distribution that they should have been sampled from (the same, unless top-k or top-p is set), `drawn_S` those that
    the sampler reported; in nats. `tokens` are the terms of `logprob_S`, [T] for each completion.
    """

    logprob_S: Tensor
    processed_S: Tensor
    drawn_S: Tensor
    gap: Gap
    tokens: list[Tensor]


def scored(
    policy: Policy, prompts: Sequence[list[int]], samples: Samples, sampling: SamplingConfig, batch: int | None = None
) -> Scored:
    """Score completions under the live weights, without gradients and without dropout.

    Args:
        policy: the trainer's policy.
        prompts: prompt of each completion, S in all.
        samples: the completions, of one prompt each.
        sampling: how they should have been sampled.
        batch: number of completions computed at once. Default: all.
    """
    tempered, processed = [], []
    rows = batch or max(len(prompts), 1)
    with torch.no_grad(), evaluating(policy.model):
        for start in range(0, len(prompts), rows):
            both = _token_logprobs(policy, prompts[start : start + rows], samples.ids[start : start + rows], sampling)
            tempered.append(both[0])
            processed.append(both[1])
    lengths = [len(ids) for ids in samples.ids]
    drawn_M = torch.tensor([logprob for row in samples.logprobs for logprob in row])
    logprob_M, processed_M = torch.cat(tempered).cpu(), torch.cat(processed).cpu()
    difference_M = (drawn_M - processed_M).abs()
    gap = Gap(
        len(drawn_M),
        drawn_M.sum().item(),
        processed_M.sum().item(),
        difference_M.sum().item(),
        difference_M.max().item(),
    )
    return Scored(
        _summed(logprob_M, lengths),
        _summed(processed_M, lengths),
        _summed(drawn_M, lengths),
        gap,
        [tokens_T.clone() for tokens_T in logprob_M.split(lengths)],
    )


def probe(
    policy: Policy, sampler: ScoringSampler, prompts: Sequence[list[int]], samples: Samples, weights: Weights = "policy"
) -> tuple[Gap, Samples]:
    """Let the sampler score a few completions, from any source, and compare with the live weights.

    Args:
        policy: the trainer's policy, with the weights that the sampler should have.
        sampler: the sampler to check.
        prompts: prompt of each completion.
        samples: the completions.
        weights: the sampler's weights to use.

    Returns:
        The gap, and the completions with the sampler's log-probabilities, for `suspects_of` with `PLAIN`.
    """
    few, drawn = handful(samples, prompts)
    said = replace(drawn, logprobs=sampler.score(few, drawn.ids, weights))
    return scored(policy, few, said, PLAIN).gap, said


def check(
    gap: Gap, config: SamplerConfig, suspects: Mapping[str, Gap] | None = None, weights: Weights = "policy"
) -> str | None:
    """Return a warning to print, or None; raise if the gap is above the limit.

    Args:
        gap: the measured gap.
        config: the limits.
        suspects: the gap to other sets of weights, by their name: a stale sampler agrees with one of these.
        weights: name of the weights that the completions are from.

    Raises:
        UserError: the gap is above `mismatch_limit`.
    """
    if gap.mean <= config.mismatch_warning:
        return None
    means = f"{gap.sampler / gap.tokens:.3f} by the sampler and {gap.trainer / gap.tokens:.3f} by the trainer"
    found = (
        f"the sampler and the trainer differ by {gap.mean:.3g} nats per token ({gap.worst:.3g} at worst) on "
        f"{gap.tokens} tokens sampled from the {weights}: mean log-probability {means}"
    )
    if gap.mean <= config.mismatch_limit:
        return f"{found}; mismatch_limit is {config.mismatch_limit:g}"
    for name, other in (suspects or {}).items():
        # A stale sampler agrees with old weights up to rounding, five times better than with the live ones at least.
        if other.mean < 0.2 * gap.mean:
            raise UserError(
                f"The sampler has stale weights: {found}, but its numbers match {name} ({other.mean:.3g} nats per "
                "token); the last synchronisation did not reach it."
            )
    raise UserError(
        f"The sampler does not compute with the trainer's weights: {found}, and mismatch_limit is "
        f"{config.mismatch_limit:g}. Likely causes: weights that did not arrive or arrived under another name, "
        "another precision, another temperature, or another checkpoint."
    )


def check_completions(samples: Samples, policy: Policy, sampling: SamplingConfig) -> None:
    """Check that completions end where they must: at the first end token, or at `max_tokens`.

    Raises:
        UserError: the sampler continued after an end token, stopped elsewhere, or reports another reason.
    """
    ends = set(policy.end_ids)
    for ids, finish in zip(samples.ids, samples.finish, strict=True):
        passed = next((token for token in ids[:-1] if token in ends), None)
        if passed is not None:
            name = policy.tokenizer.convert_ids_to_tokens(passed)
            raise UserError(
                f"The sampler does not stop at the end token {name} ({passed}): a completion continues after it."
            )
        ended = bool(ids) and ids[-1] in ends
        if ended != (finish == "stop") or not (ended or len(ids) == sampling.max_tokens):
            raise UserError(
                f"The sampler ended a completion early: it has {len(ids)} of max_tokens = {sampling.max_tokens} "
                f"tokens, its finish is {finish!r}, and it {'ends' if ended else 'does not end'} with an end token."
            )


def handful(samples: Samples, prompts: Sequence[list[int]]) -> tuple[list[list[int]], Samples]:
    """Return the first few completions with their prompts (S of each)."""
    few = slice(0, PROBED)
    return list(prompts[few]), Samples(samples.ids[few], samples.logprobs[few], samples.text[few], samples.finish[few])


def suspects_of(
    policy: Policy,
    prompts: Sequence[list[int]],
    samples: Samples,
    sampling: SamplingConfig,
    sets: Mapping[str, WeightSet | None],
) -> dict[str, Gap]:
    """Return the gap of a few completions to other sets of weights, for `check`."""
    prompts, samples = handful(samples, prompts)
    gaps = {}
    for name, weights in sets.items():
        if weights is not None:
            with weights.applied():
                gaps[name] = scored(policy, prompts, samples, sampling).gap
    return gaps


def _token_logprobs(
    policy: Policy, prompts: Sequence[list[int]], completions: Sequence[list[int]], sampling: SamplingConfig
) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of the M completion tokens at the temperature, and after top-k and top-p too."""
    model: Any = policy.model
    device = policy.device
    ids_SL, attended_SL, predicts_SL, _ = right_padded(prompts, completions, device)
    ids_M = torch.tensor([token for completion in completions for token in completion], device=device)
    processed_M = torch.zeros(len(ids_M), device=device)

    # The head calls this per chunk with its logits, which the temperature has divided: the processed log-probabilities
    # are taken on the way, so that one forward pass gives both.
    def look(rows: slice, logits_CV: Tensor) -> tuple[Tensor, Tensor]:
        ids_C1 = ids_M[rows].unsqueeze(-1)
        logprobs_CV = processed_logprobs(logits_CV, 1.0, sampling.top_k, sampling.top_p)
        processed_M[rows] = logprobs_CV.gather(-1, ids_C1).squeeze(-1)
        return ids_C1, torch.ones_like(ids_C1, dtype=torch.float32)

    targets, heat = Targets.given(ids_M) if sampling.untruncated else Targets(look), sampling.temperature
    with instead_of_logits(model, predicts_SL, lambda hidden, head: score(hidden, head, targets, heat).logprobs):
        logprob_M = model(input_ids=ids_SL, attention_mask=attended_SL, use_cache=False).logits
    return logprob_M, logprob_M if sampling.untruncated else processed_M


def _summed(values_M: Tensor, lengths: Sequence[int]) -> Tensor:
    """Sum over rows of these lengths."""
    return torch.stack([row.sum() for row in values_M.split(list(lengths))])
