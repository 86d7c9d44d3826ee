"""Configuration of learning from a teacher's sampled logits. Imports no torch."""

from typing import Literal

from pydantic import Field

from gemsmith.policy.config import TrainingConfig
from gemsmith.rl.teachers.config import SampledConfig


class TargetsConfig(TrainingConfig, SampledConfig):
    """How a teacher's sampled logits are drawn and learnt, for every stage that learns from them."""

    average: Literal["tokens", "sequences"] = Field(
        "tokens",
        description="What a step's loss is the mean of. tokens: all the step's tokens alike. sequences: the means over "
        "the tokens of each sequence (GKD), by which a token of a short one counts for more.",
    )
