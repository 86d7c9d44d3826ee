"""Estimates of memory and time of stages from the sizes of their models. Imports no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gemsmith.contracts.planning import ForecastContext, ModelSize, StageForecast

if TYPE_CHECKING:
    from gemsmith.policy.config import TrainingConfig

# FLOP per second and core, measured on two AVX2 cores in float32: 60 training tokens/s and 47 sampled tokens/s at 270
# million parameters.
TRAINING_FLOPS = 48e9
SAMPLING_FLOPS = 13e9
TYPICAL_TOKENS = {True: 16, False: 256}
"""Assumed tokens per example where the recipe does not say, by whether the policy is `tiny`."""
PROMPTS = 300
"""Assumed prompts of a data section where the recipe does not say."""
ADAM_BYTES = 16
"""Bytes per trained weight in float32: the weight, its gradient and Adam's two moments."""
WEIGHT_BYTES = 4
START_SECONDS = 2.0
"""Seconds that loading and saving take at least."""
TINY_VOCABULARY = 10_000


@dataclass(frozen=True)
class TrainingCosts:
    """Memory and compute of a training beyond the policy that it trains, for `TrainingConfig.costs`.

    Attributes:
        passes: forward and backward passes of the policy over each example's tokens.
        completions: completions sampled for each example.
        frozen: weights of other models in memory: teachers, reward models.
        copied: weights of further copies of the policy: an anchor, the initial policy, a quantised copy.
        trained_beside: weights of a second model that is trained, such as a classifier.
        teacher_flops: FLOP per token for the teachers, in each pass.
        scoring_flops: FLOP per token for reward models, over all completions of an example.
    """

    passes: float = 1.0
    completions: float = 0.0
    frozen: int = 0
    copied: int = 0
    trained_beside: int = 0
    teacher_flops: float = 0.0
    scoring_flops: float = 0.0


def typical_tokens(size: ModelSize) -> int:
    """Return the assumed number of tokens of an example."""
    return TYPICAL_TOKENS[size.vocabulary < TINY_VOCABULARY]


def sampled_tokens(sampling: Any, size: ModelSize) -> int:
    """Return the assumed number of tokens of a completion; `sampling` is a `policy.config.SamplingConfig` or None."""
    return min(sampling.max_tokens, typical_tokens(size)) if sampling is not None else 0


def forecast_training(
    training: "TrainingConfig", policy: Any, context: ForecastContext, repeats: float = 1.0
) -> StageForecast:
    """Return the forecast of a training, or of `repeats` trainings like it, one after the other.

    Memory counts weights, optimiser state and logits, not activations.

    Args:
        training: settings, whose `costs` give memory and compute besides the policy.
        policy: `policy.config.PolicyConfig` to start from.
        context: the rest of the recipe and the machine.
        repeats: number of trainings, in units of the settings' steps.
    """
    size = context.size_of(policy) if policy is not None else None
    if size is None:
        return StageForecast()
    trained = size.adapters(training.lora.rank) if training.lora else size.parameters
    costs = training.costs(size, trained, context)
    tokens = min(training.max_length, typical_tokens(size))
    # Under adapters the policy's own weights are held beside what is trained, without optimiser state.
    frozen = costs.frozen + costs.copied + (size.parameters if training.lora else 0)
    memory = float(WEIGHT_BYTES * frozen + ADAM_BYTES * (trained + costs.trained_beside))
    rows = training.micro_batch or training.batch
    memory += 2.0 * WEIGHT_BYTES * rows * tokens * size.vocabulary
    if context.throughput is None:
        return StageForecast(size, trained, memory)
    forward = 2.0 * size.parameters  # FLOP per token; a backward pass takes twice as many
    examples = float(training.steps * training.batch)
    learning = examples * tokens * (costs.passes * (3 * forward + costs.teacher_flops) + costs.scoring_flops)
    sampling = examples * costs.completions * sampled_tokens(getattr(training, "sampling", None), size) * forward
    seconds = learning / context.throughput.training + sampling / context.throughput.sampling
    return StageForecast(size, trained, memory, START_SECONDS + seconds * repeats)


def forecast_sampling(
    size: ModelSize | None,
    context: ForecastContext,
    *,
    models: int,
    prompts: int,
    samples: int,
    sampling: Any,
    rewards: tuple[str, ...],
) -> StageForecast:
    """Return the forecast of a stage that samples completions, scores them, and trains nothing.

    Args:
        size: size of each policy; None if unknown.
        context: the rest of the recipe and the machine.
        models: number of policies in memory at once.
        prompts: number of prompts to answer, over all policies.
        samples: completions per prompt.
        sampling: `policy.config.SamplingConfig`.
        rewards: names of the rewards that score each completion.
    """
    if size is None:
        return StageForecast()
    judges = context.judge_parameters(rewards)
    memory = float(WEIGHT_BYTES * (models * size.parameters + judges))
    if context.throughput is None:
        return StageForecast(size, None, memory)
    tokens = prompts * samples * sampled_tokens(sampling, size)
    seconds = tokens * 2.0 * size.parameters / context.throughput.sampling
    seconds += tokens * 2.0 * judges / context.throughput.training
    return StageForecast(size, None, memory, START_SECONDS + seconds)
