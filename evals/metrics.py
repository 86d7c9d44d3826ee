"""The project's metrics as `evaluate.Metric` classes, defined here so that they need no hub."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import evaluate
from datasets import Features, Value

from gemsmith.contracts.intervals import mean_interval, rate_interval

_INPUTS = """
Args:
    predictions: {predictions}
    prompts: the number of the prompt that each completion answers.
Returns:
    mean, low, high: the mean over completions and its 95% interval.
"""


class _PromptMetric(evaluate.Metric):
    """A mean over completions that belong to prompts, with an interval over prompts."""

    description: str
    predictions: str
    references: str | None = None

    def _info(self) -> evaluate.MetricInfo:
        columns = {"predictions": Value("float64"), "prompts": Value("int64")}
        if self.references is not None:
            columns["references"] = Value("float64")
        return evaluate.MetricInfo(
            description=self.description,
            citation="",
            inputs_description=_INPUTS.format(predictions=self.predictions),
            features=Features(columns),
        )


class PassRate(_PromptMetric):
    """Share of completions that pass: their ground-truth reward is at least 1."""

    description = "Share of completions whose ground-truth reward is at least 1."
    predictions = "ground-truth reward of each completion."

    def _compute(self, predictions: Sequence[float], prompts: Sequence[int]) -> dict[str, Any]:
        return asdict(rate_interval([float(value >= 1.0) for value in predictions], prompts))


class MeanReward(_PromptMetric):
    """Mean of a reward, or of any other number of a completion."""

    description = "Mean reward of completions."
    predictions = "reward of each completion."

    def _compute(self, predictions: Sequence[float], prompts: Sequence[int]) -> dict[str, Any]:
        return asdict(mean_interval(predictions, prompts))


class KLToInitial(_PromptMetric):
    """Divergence of a policy from the initial one, in nats per completion, estimated on the policy's own samples.

    KL(policy || initial) = E_policy[log policy(y) - log initial(y)]. Unbiased for completions sampled from the whole
    vocabulary, at the temperature that the log-probabilities are at. Single differences may be negative; the
    expectation cannot.
    """

    description = "KL of a policy to the initial policy, in nats per completion."
    predictions = "log-probability of each completion under the policy."
    references = "log-probability of each completion under the initial policy."

    def _compute(
        self, predictions: Sequence[float], references: Sequence[float], prompts: Sequence[int]
    ) -> dict[str, Any]:
        differences = [policy - initial for policy, initial in zip(predictions, references, strict=True)]
        return asdict(mean_interval(differences, prompts))
