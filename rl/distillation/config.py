"""Configuration of training on a teacher's sampled logits. Imports no torch."""

from typing import Literal

from pydantic import Field

from gemsmith.policy.config import TrainingConfig
from gemsmith.rl.teachers.config import SampledConfig


class TargetsConfig(TrainingConfig, SampledConfig):
    """Settings for sampling a teacher's logits and averaging the loss, for stages that train on them."""

    average: Literal["tokens", "sequences"] = Field(
        "tokens",
        description="How a step's loss is averaged. tokens: mean over all tokens of the step. sequences: mean over "
        "sequences of each sequence's token mean (GKD), which gives tokens of short sequences more weight.",
    )
