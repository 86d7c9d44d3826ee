"""Rollout of one step: sample completions from policy and anchor, score them, and compute log-probabilities."""

import functools
import operator
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from gemsmith.contracts.processes import rank
from gemsmith.curation.example import Example
from gemsmith.policy.config import SamplerConfig, SamplingConfig
from gemsmith.policy.head.logprobs import listed_logprobs, sequence_logprobs
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.contract import Sampler, Samples, ScoringSampler
from gemsmith.policy.samplers.logprob_mismatch import (
    PLAIN,
    Gap,
    Scored,
    check,
    check_completions,
    handful,
    probe,
    scored,
    suspects_of,
)
from gemsmith.policy.text.chat import prompt_ids
from gemsmith.policy.training.processes import from_all
from gemsmith.policy.weight_set import WeightSet
from gemsmith.rl.algorithms.algorithm import Algorithm, Completions, Draw, Rollouts, TokenLoss, Weights, learnt_metric
from gemsmith.rl.rewards.compose import Rewards
from gemsmith.rl.rewards.contributions import Composed, Moments, compose
from gemsmith.rl.rewards.metrics import reward_metrics, share_metrics
from gemsmith.rl.rewards.reward import columns_of
from gemsmith.rl.rollouts.distinct import distinct_metrics
from gemsmith.rl.rollouts.prefetch import Prefetcher
from gemsmith.rl.rollouts.step_timer import rates, timed, tokens_in

Prompt = TypeVar("Prompt")
Scores = dict[str, list[float | None]]
"""Values of the completions by reward name; None where the reward does not apply."""


@dataclass(frozen=True)
class _ProcessRollout:
    """Rollout of one process's share of the prompts.

    Attributes:
        draws: completions by set of weights.
        raw_reward_PN: weighted sums of `raw`, by set of weights.
        text: texts of the policy's completions.
        finish: reasons why the policy's completions ended.
        raw: rewards before normalisation, clipping and gates, by set of weights.
        control: rewards of the policy's completions that are not learned from.
        seconds: time of each phase; for sampling, only the time spent waiting.
        sampling_seconds: time that sampling took, in the background or not.
        gaps: differences between the sampler's and the trainer's log-probabilities, where the two can differ.
        drift: the same difference for completions sampled ahead, caused by the weights of the step before; else None.
    """

    draws: dict[Weights, Completions]
    raw_reward_PN: dict[Weights, Tensor]
    text: list[str]
    finish: list[str]
    raw: dict[Weights, Scores]
    control: Scores
    seconds: dict[str, float]
    sampling_seconds: float
    gaps: dict[Weights, Gap]
    drift: Gap | None


class RolloutCollector:
    """Collector of everything that an on-policy step needs before its loss: samples, rewards, log-probabilities."""

    def __init__(
        self,
        policy: Policy,
        sampler: Sampler,
        rewards: Rewards,
        algorithm: Algorithm,
        initial: WeightSet,
        anchor: WeightSet | None,
        batch: int,
        sampling: SamplingConfig,
        limits: SamplerConfig | None = None,
        say: Callable[[str], None] = print,
        control: Rewards | None = None,
    ) -> None:
        """Initialise the collector.

        Args:
            policy: the live policy.
            sampler: samples completions from the policy and the anchor.
            rewards: rewards that the algorithm learns from.
            algorithm: decides how many completions and which log-probabilities are needed.
            initial: weights of the initial policy.
            anchor: weights of the anchor, or None.
            batch: number of completions whose log-probabilities are computed at once.
            sampling: settings of the sampling distribution.
            limits: largest differences allowed between the sampler's and the trainer's log-probabilities.
            say: called with a warning if a difference is large.
            control: rewards of the policy's completions that are logged but not learned from.
        """
        self.sampling, self.limits, self.say = sampling, limits or SamplerConfig(), say
        self.policy, self.sampler, self.rewards, self.algorithm = policy, sampler, rewards, algorithm
        self.control = control or Rewards({}, {})
        self.shaped = any(term.shaped for term in rewards.terms.values())
        self.running = {name: Moments() for name, term in rewards.terms.items() if term.normalise == "running"}
        self.prefetcher = Prefetcher(sampler, algorithm.draws)
        self.initial, self.anchor, self.batch = initial, anchor, batch
        self.shown: list[dict[str, Any]] = []

    def collect(
        self, examples: Sequence[Example], seed: int, processes: int = 1, ahead: Sequence[Example] = ()
    ) -> tuple[Rollouts, dict[str, float]]:
        """Roll out one batch of prompts; a collective call in which each process handles its share of the prompts.

        Args:
            examples: P prompts, the same in every process.
            seed: seed of the sampler; a step's completions depend on it and the weights only.
            processes: number of processes that call this together.
            ahead: prompts of the next call, whose seed must be `seed` + 1; sampling of their completions starts now, in
                the background, from the current weights.

        Returns:
            The rollouts of all prompts, and the metrics of the policy's completions; both the same in every process.
        """
        prompts = self._prompts(examples)
        mine, next_ = share(len(examples), processes), share(len(ahead), processes)
        part = self._roll_out(
            examples[mine], prompts[mine], seed, mine.start, (self._prompts(ahead[next_]), seed + 1, next_.start)
        )
        part = _merge_processes(from_all(part)) if processes > 1 else part
        self._check_gaps(part.gaps)
        # Normalisation and gates need the rewards of the whole step, so composing comes after the merge.
        draws, composed = self._compose_rewards(examples, part)
        self.running = composed.running
        self._show(examples, part, draws["policy"].learnt_reward_PN)
        metrics = draw_metrics(part.draws["policy"], part.raw_reward_PN["policy"], part.finish)
        if self.shaped:
            metrics |= learnt_metric(draws["policy"].learnt_reward_PN)
        # `composed` covers all sets of weights, the policy's completions first; metrics are of the policy's only.
        counted = {name: each[: len(part.text)] for name, each in composed.counted.items()}
        metrics |= reward_metrics(self.rewards.terms, part.raw["policy"], counted, part.control)
        metrics |= share_metrics(composed.spread)
        metrics |= {f"{name}_seconds": s for name, s in part.seconds.items()} | self._rates(part)
        metrics |= {f"sampler_gap/{weights}": gap.mean for weights, gap in part.gaps.items()}
        if part.drift is not None:
            metrics["drift"] = part.drift.mean
        return Rollouts(prompts, draws["policy"], draws.get("anchor")), metrics

    def _rates(self, part: _ProcessRollout) -> dict[str, float]:
        """Return tokens sampled, completions rewarded and tokens scored per second, for policy and anchor together."""
        sampling, completions = (sum(f(draw.ids) for draw in part.draws.values()) for f in (tokens_in, len))
        scored_tokens = tokens_in(part.draws["policy"].ids) * self.scorings
        seconds = {**part.seconds, "sampling": part.sampling_seconds}
        by_token = rates({"sampling": sampling, "logprob": scored_tokens}, seconds)
        return by_token | rates({"reward": completions}, part.seconds, unit="completions")

    @property
    def scorings(self) -> int:
        """Return the number of scoring passes over the policy's completions: under initial, anchor and live weights."""
        # The live log-probabilities come from the sampler if it has the same weights.
        return 1 + self.algorithm.needs_anchor_logprob + (not self.sampler.same_weights)

    def _compose_rewards(
        self, examples: Sequence[Example], part: _ProcessRollout
    ) -> tuple[dict[Weights, Draw], Composed]:
        """Return the whole step's completions with composed rewards, by set of weights, and the composition."""
        draws = self.algorithm.draws
        # Flat lists over all completions of the step: by set of weights, then prompt-major.
        prompt = [i for weights in part.raw for i in range(len(examples)) for _ in range(draws[weights])]
        raw = {name: [v for scores in part.raw.values() for v in scores[name]] for name in self.rewards.terms}
        tasks = [examples[i].task for i in prompt]
        finished = [bool(ended) for w in part.raw for ended in part.draws[w].finished_PN.flatten()]  # type: ignore[union-attr]
        composed = compose(self.rewards.terms, raw, prompt, tasks, self.running, finished)
        totals = torch.tensor(composed.total).split([len(part.draws[weights].ids) for weights in part.raw])
        learnt = dict(zip(part.raw, totals, strict=True))
        return {w: draw.rewarded(learnt[w].view(-1, draws[w])) for w, draw in part.draws.items()}, composed

    def _prompts(self, examples: Sequence[Example]) -> list[list[int]]:
        return [prompt_ids(self.policy.tokenizer, example.messages) for example in examples]

    def _roll_out(
        self,
        examples: Sequence[Example],
        prompts: list[list[int]],
        seed: int,
        before: int,
        ahead: tuple[list[list[int]], int, int],
    ) -> _ProcessRollout:
        """Sample, reward and score this process's prompts.

        Args:
            examples: this process's examples.
            prompts: token ids of their prompts.
            seed: seed of the sampler.
            before: offset of these prompts within the step.
            ahead: prompts, seed and offset of the next call, or no prompts.
        """
        seconds = dict.fromkeys(("sync", "sampling", "reward", "logprob"), 0.0)
        # 1. Wait for completions that the step before started to sample. The sampler is idle afterwards.
        with timed(seconds, "sampling"):
            from_ahead = self.prefetcher.take()
        # 2. Copy the live weights to the sampler, unless it samples nothing in this step.
        if from_ahead is None or ahead[0]:
            with timed(seconds, "sync"):
                self.sampler.sync()
        # 3. Without completions from ahead, sample now.
        with timed(seconds, "sampling"):
            samples = from_ahead or self.prefetcher.sample_now(prompts, seed, before)
        sampling_seconds, gaps = self.prefetcher.seconds, {}
        # 4. Start to sample the next step's completions. Probe the sampler before that, as it is busy afterwards.
        if ahead[0]:
            with timed(seconds, "sync"):
                gaps = self._probe(prompts, samples)
            self.prefetcher.start(*ahead)
        for drawn in samples.values():
            check_completions(drawn, self.policy, self.sampling)
        # 5. Rewards and log-probabilities, while the sampler may work in the background.
        with timed(seconds, "reward"):
            raw_reward_PN, raw = self._reward(examples, samples)
            control = self._control(examples, samples["policy"])
        with timed(seconds, "logprob"):
            draws = {weights: _completions(drawn, len(prompts)) for weights, drawn in samples.items()}
            draws["policy"], scores = self._with_logprobs(prompts, draws["policy"], samples)
            # Completions from ahead come from older weights: their difference is drift, not a fault of the sampler.
            if scores is not None and from_ahead is None:
                gaps = self._gaps(prompts, scores, samples)
        own, drift = samples["policy"], scores.gap if scores and from_ahead else None
        text, finish = own.text, list[str](own.finish)
        return _ProcessRollout(draws, raw_reward_PN, text, finish, raw, control, seconds, sampling_seconds, gaps, drift)

    def _reward(
        self, examples: Sequence[Example], samples: dict[Weights, Samples]
    ) -> tuple[dict[Weights, Tensor], dict[Weights, Scores]]:
        """Score all completions in one call; return the weighted sums and the raw rewards, by set of weights."""
        texts, asked, finish, ids = [], [], [], []
        for weights, drawn in samples.items():
            texts += drawn.text
            finish += drawn.finish
            ids += drawn.ids
            asked += self._repeated(examples, weights)
        table = self.rewards.score([example.prompt for example in asked], texts, columns_of(asked, finish, ids))
        raw_reward_PN: dict[Weights, Tensor] = {}
        raw: dict[Weights, Scores] = {}
        start = 0
        for weights, drawn in samples.items():
            end = start + len(drawn.ids)
            raw_reward_PN[weights] = torch.tensor(table.total[start:end]).view(len(examples), -1)
            raw[weights] = {name: values[start:end] for name, values in table.each.items()}
            start = end
        return raw_reward_PN, raw

    def _control(self, examples: Sequence[Example], own: Samples) -> Scores:
        """Score the policy's completions by the rewards that are not learned from."""
        asked = self._repeated(examples, "policy")
        columns = columns_of(asked, own.finish, own.ids)
        return self.control.score([example.prompt for example in asked], own.text, columns).each

    def _with_logprobs(
        self, prompts: list[list[int]], draw: Completions, samples: dict[Weights, Samples]
    ) -> tuple[Completions, Scored | None]:
        """Return the policy's completions with log-probabilities, and the trainer's scores if the sampler's can differ.

        All of them, under each set of weights, are at the sampling temperature: the ratios and KLs of an algorithm are
        those of the distributions that are sampled. At another temperature than the completions', a loss would pull
        the policy towards the sampled distribution even without a reward. (Configurations refuse top_k and top_p.)
        Token-level log-probabilities are kept only for algorithms with a `TokenLoss`.
        """
        n = len(draw.ids) // len(prompts)
        repeated = [prompt for prompt in prompts for _ in range(n)]
        by_token, heat = isinstance(self.algorithm, TokenLoss), self.sampling.temperature

        def under_live_weights() -> tuple[Tensor, list[Tensor] | None]:
            if by_token:
                listed = listed_logprobs(self.policy.model, repeated, draw.ids, heat, self.batch)
                return torch.stack([each.sum() for each in listed]).view(-1, n), listed
            sums_S = sequence_logprobs(self.policy.model, repeated, draw.ids, heat, self.batch)
            return sums_S.view(-1, n).cpu(), None

        importance_PN, own = None, None
        tokens: list[Tensor] | None
        # Live log-probabilities: a separate engine is always rescored, because its weights or kernels differ and the
        # importance ratio needs both sides; the trainer's own sampler reports them.
        if not self.sampler.same_weights:
            own = scored(self.policy, repeated, samples["policy"], self.sampling, self.batch)
            live_PN, tokens = own.logprob_S.view(-1, n), own.tokens
            importance_PN = (own.processed_S - own.drawn_S).exp().view(-1, n)
        else:
            live_PN = torch.tensor([sum(logprobs) for logprobs in samples["policy"].logprobs]).view(-1, n)
            tokens = [torch.tensor(logprobs) for logprobs in samples["policy"].logprobs]
        done = replace(draw, logprob_PN=live_PN, importance_PN=importance_PN, tokens=tokens if by_token else None)
        # `applied` swaps another set of weights into the live model for the duration of the block.
        with self.initial.applied():
            initial_PN, tokens = under_live_weights()
        done = replace(done, initial_logprob_PN=initial_PN, initial_tokens=tokens)
        if self.algorithm.needs_anchor_logprob:
            assert self.anchor is not None
            with self.anchor.applied():
                anchor_PN, tokens = under_live_weights()
            done = replace(done, anchor_logprob_PN=anchor_PN, anchor_tokens=tokens)
        return done, own

    def _gaps(self, prompts: list[list[int]], own: Scored, samples: dict[Weights, Samples]) -> dict[Weights, Gap]:
        """Return the gaps of all policy completions and of a few anchor completions.

        Raises:
            RunError: the policy's gap is above the limit.
        """
        gaps: dict[Weights, Gap] = {"policy": own.gap}
        self._check_policy(own.gap, self._repeated(prompts, "policy"), samples["policy"], self.sampling)
        if "anchor" in samples:
            assert self.anchor is not None
            few, drawn = handful(samples["anchor"], self._repeated(prompts, "anchor"))
            with self.anchor.applied():
                gaps["anchor"] = scored(self.policy, few, drawn, self.sampling).gap
        return gaps

    def _probe(self, prompts: list[list[int]], samples: dict[Weights, Samples]) -> dict[Weights, Gap]:
        """Return the gaps right after a weight sync, from a few completions of each set that were sampled before it."""
        assert isinstance(self.sampler, ScoringSampler)
        gaps: dict[Weights, Gap] = {}
        for weights, drawn in samples.items():
            applied = self.anchor.applied() if weights == "anchor" and self.anchor is not None else nullcontext()
            repeated = self._repeated(prompts, weights)
            with applied:
                gaps[weights], rescored = probe(self.policy, self.sampler, repeated, drawn, weights)
            if weights == "policy":
                self._check_policy(gaps[weights], repeated, rescored, PLAIN)
        return gaps

    def _check_policy(self, gap: Gap, repeated: list[list[int]], samples: Samples, sampling: SamplingConfig) -> None:
        """Raise RunError if the gap is above the limit, naming the weights that the sampler may hold instead."""
        if gap.mean > self.limits.mismatch_limit:
            sets = {"the initial policy": self.initial, "the anchor": self.anchor}
            check(gap, self.limits, suspects_of(self.policy, repeated, samples, sampling, sets))

    def _repeated(self, prompts: Sequence[Prompt], weights: Weights) -> list[Prompt]:
        """Return the prompt of each completion, prompt-major."""
        return [prompt for prompt in prompts for _ in range(self.algorithm.draws[weights])]

    def _check_gaps(self, gaps: dict[Weights, Gap]) -> None:
        """Warn about large gaps over all processes; raise RunError for one above the limit."""
        for weights, gap in gaps.items():
            warning = check(gap, self.limits, weights=weights)
            if warning and rank() == 0:
                self.say(warning)

    def _show(self, examples: Sequence[Example], part: _ProcessRollout, learnt_PN: Tensor) -> None:
        """Keep the first completion of each of the first three prompts, for the file of example completions."""
        raw_PN = part.raw_reward_PN["policy"]
        n = raw_PN.shape[1]
        self.shown = [
            {
                "prompt": examples[i].prompt,
                "completion": part.text[i * n],
                "reward": raw_PN[i, 0].item(),
                **({"learnt": learnt_PN[i, 0].item()} if self.shaped else {}),
                "rewards": {name: values[i * n] for name, values in part.raw["policy"].items()},
                **({"control": {name: values[i * n] for name, values in part.control.items()}} if part.control else {}),
            }
            for i in range(min(3, len(examples)))
        ]


def _completions(samples: Samples, prompts: int) -> Completions:
    finished_S = torch.tensor([reason == "stop" for reason in samples.finish])
    return Completions(samples.ids, finished_PN=finished_S.view(prompts, -1))


def draw_metrics(draw: Completions, raw_reward_PN: Tensor, finish: Sequence[str]) -> dict[str, float]:
    """Compute the metrics of the policy's completions from their raw rewards, [P, N], and their reasons to end."""
    assert draw.logprob_PN is not None and draw.initial_logprob_PN is not None
    length_S = torch.tensor([float(len(ids)) for ids in draw.ids])
    return {
        "reward": raw_reward_PN.mean().item(),
        "kl_to_initial": (draw.logprob_PN - draw.initial_logprob_PN).mean().item(),  # k1, nats per completion
        "entropy": -(draw.logprob_PN.flatten() / length_S).mean().item(),  # nats per token, sampled estimate
        "length": length_S.mean().item(),
        "ended": sum(reason == "stop" for reason in finish) / len(finish),
        **distinct_metrics(draw.ids, finish),
    }


def _merge_processes(parts: Sequence[_ProcessRollout]) -> _ProcessRollout:
    """Concatenate the parts of all processes, in order of rank; seconds are those of the slowest process."""
    first = parts[0]
    return _ProcessRollout(
        draws={weights: Completions.joined([part.draws[weights] for part in parts]) for weights in first.draws},
        raw_reward_PN={w: torch.cat([part.raw_reward_PN[w] for part in parts]) for w in first.raw_reward_PN},
        text=[text for part in parts for text in part.text],
        finish=[finish for part in parts for finish in part.finish],
        raw={weights: _concatenated([part.raw[weights] for part in parts]) for weights in first.raw},
        control=_concatenated([part.control for part in parts]),
        seconds={name: max(part.seconds[name] for part in parts) for name in first.seconds},
        sampling_seconds=max(part.sampling_seconds for part in parts),
        gaps={w: functools.reduce(operator.add, [part.gaps[w] for part in parts]) for w in first.gaps},
        drift=functools.reduce(operator.add, [part.drift for part in parts]) if first.drift else None,
    )


def _concatenated(scores: Sequence[Scores]) -> Scores:
    return {name: [value for each in scores for value in each[name]] for name in scores[0]}


def share(examples: int, processes: int) -> slice:
    """Return the slice of a step's examples that this process handles."""
    if processes == 1:
        return slice(0, examples)
    return slice(examples * rank() // processes, examples * (rank() + 1) // processes)
