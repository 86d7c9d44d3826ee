"""On-policy completions: steps of distillation on the student's own samples (GKD: Agarwal et al. 2024)."""

import functools
import operator
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gemsmith.contracts.processes import rank
from gemsmith.contracts.seeds import seed_of_step
from gemsmith.curation.example import Example
from gemsmith.policy.config import SamplerConfig, SamplingConfig
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.contract import Sampler, ScoringSampler
from gemsmith.policy.samplers.logprob_mismatch import Gap, check, check_completions, probe
from gemsmith.policy.training.processes import from_all
from gemsmith.rl.algorithms.algorithm import leave_one_out
from gemsmith.rl.rewards.compose import Rewards
from gemsmith.rl.rewards.contributions import compose
from gemsmith.rl.rewards.metrics import reward_metrics
from gemsmith.rl.rewards.reward import columns_of
from gemsmith.rl.rollouts.rollout import share

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class _Drawn:
    """Completions that one process sampled for its share of a step's prompts, with their rewards.

    Attributes:
        ids: token ids of each completion.
        ended: True for completions that end with an end-of-turn token.
        raw: values of each reward, one per completion; None where it does not apply.
        gap: difference between the sampler's and the trainer's log-probabilities; None if they are not compared.
    """

    ids: list[list[int]]
    ended: list[bool]
    raw: dict[str, list[float | None]]
    gap: Gap | None


class OnPolicyCompletions:
    """Source of on-policy completions: selects the steps that use them, and samples them.

    Both depend only on the seed, the step and the weights: not on the number of processes or on earlier steps.
    """

    def __init__(
        self,
        policy: Policy,
        sampler: Sampler,
        examples: Sequence[Example],
        rewards: Rewards,
        *,
        lambda_: float,
        samples: int,
        sampling: SamplingConfig,
        limits: SamplerConfig,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        """Store the parts; see `replace_completions`.

        Args:
            policy: the student that is being trained.
            sampler: sampler of the student.
            examples: examples of the rows, indexed by the rows' `number`.
            rewards: rewards of the completions; may be empty.
            lambda_: share of on-policy steps, in [0, 1].
            samples: completions per prompt.
            sampling: sampling settings.
            limits: accepted difference between the sampler's and the trainer's log-probabilities.
            seed: seed of the choice of steps and of the completions.
            say: called with a warning if the difference exceeds the limits.
        """
        self.policy, self.sampler, self.examples, self.rewards = policy, sampler, examples, rewards
        self.lambda_, self.samples, self.sampling, self.limits = lambda_, samples, sampling, limits
        self.seed, self.say = seed, say

    def is_due(self, step: int) -> bool:
        """Return True if `step`, counted from 0, is on-policy."""
        return random.Random(f"{self.seed}, words of step {step}").random() < self.lambda_

    def replace_completions(self, batches: list[Rows], step: int) -> tuple[list[Rows], dict[str, float]]:
        """Return this process's micro-batches of a step with sampled completions, and the step's metrics; collective.

        Each row is repeated for each sample, with `number` -1, its `place` in the step, the `advantage` of its reward
        over the prompt's other samples, and the step's `mean_length`. The metrics cover all processes.
        """
        # All processes see the step's rows in one order, micro-batch by micro-batch, and sample one contiguous share.
        # So a completion's seed depends on its place in the step and not on the number of processes.
        everyone = from_all(batches)
        order = [row for turn in range(len(batches)) for each in everyone for row in each[turn]]
        mine = share(len(order), len(everyone))
        drawn = _joined(from_all(self._draw(order[mine], step, mine.start)))
        advantage, metrics = self._rewarded(order, drawn)
        if drawn.gap is not None:
            metrics["sampler_gap/policy"] = drawn.gap.mean
            warning = check(drawn.gap, self.limits)
            if warning and rank() == 0:
                self.say(warning)
        lengths = [len(ids) for ids in drawn.ids]
        mean_length = sum(lengths) / len(lengths)
        metrics |= {"length": mean_length, "ended": sum(drawn.ended) / len(lengths)}
        completions = [
            {"completion": ids, "number": -1, "place": i, "advantage": advantage[i], "mean_length": mean_length}
            for i, ids in enumerate(drawn.ids)
        ]
        # Hand the completions back to the micro-batches that their prompts came from; `place` counts prompts.
        own, place = [], 0
        for turn in range(len(batches)):
            for process, each in enumerate(everyone):
                places = range(place * self.samples, (place + len(each[turn])) * self.samples)
                if process == rank() % len(everyone):
                    own.append([{**order[i // self.samples], **completions[i]} for i in places])
                place += len(each[turn])
        return own, metrics

    def _draw(self, rows: Rows, step: int, before: int) -> _Drawn:
        """Sample and score completions of some of the step's rows; `before` is their offset within the step."""
        prompts = [row["prompt"] for row in rows]
        self.sampler.sync()
        seed = seed_of_step(self.seed, step)
        drawn = self.sampler.sample(prompts, self.samples, seed, weights="policy", before=before * self.samples)
        check_completions(drawn, self.policy, self.sampling)
        repeated = [prompt for prompt in prompts for _ in range(self.samples)]
        gap = None
        if not self.sampler.same_weights and isinstance(self.sampler, ScoringSampler):
            gap, _ = probe(self.policy, self.sampler, repeated, drawn)
        asked = [self.examples[row["number"]] for row in rows for _ in range(self.samples)]
        table = self.rewards.score(
            [each.prompt for each in asked], drawn.text, columns_of(asked, drawn.finish, drawn.ids)
        )
        return _Drawn(drawn.ids, [reason == "stop" for reason in drawn.finish], table.each, gap)

    def _rewarded(self, rows: Rows, drawn: _Drawn) -> tuple[list[float], dict[str, float]]:
        """Return the leave-one-out advantage of each completion, and the reward metrics."""
        if not self.rewards.terms:
            return [0.0] * len(drawn.ids), {}
        prompt = [i for i in range(len(rows)) for _ in range(self.samples)]
        tasks = [self.examples[rows[i]["number"]].task for i in prompt]
        composed = compose(self.rewards.terms, drawn.raw, prompt, tasks, {}, drawn.ended)
        reward_PN = torch.tensor(composed.total).view(len(rows), self.samples)
        means = reward_metrics(self.rewards.terms, drawn.raw, composed.counted, {})
        return leave_one_out(reward_PN).flatten().tolist(), {"reward": reward_PN.mean().item(), **means}


def _joined(parts: Sequence[_Drawn]) -> _Drawn:
    """Concatenate the parts of all processes, in order."""
    return _Drawn(
        ids=[ids for part in parts for ids in part.ids],
        ended=[ended for part in parts for ended in part.ended],
        raw={name: [value for part in parts for value in part.raw[name]] for name in parts[0].raw},
        gap=functools.reduce(operator.add, [part.gap for part in parts]) if parts[0].gap else None,
    )
