"""Configuration of rewards. Imports no torch."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from contracts.strict import StrictModel


class RewardConfig(StrictModel):
    """Fields of every reward; a kind of reward is a subclass with a literal `kind`.

    `entry` names the class that scores, as "package.module:Class": called with (name, config, stage), it satisfies
    `rl.rewards.reward.Reward`. Reading a recipe imports none of it.
    """

    entry: ClassVar[str]

    weight: float = Field(1.0, allow_inf_nan=False, description="Factor of this reward in the sum.")
    time_limit: float = Field(60.0, gt=0, description="Seconds that one call on a batch may take; then the run stops.")


class MathReward(RewardConfig):
    """1 where the completion's answer equals the ground truth, else 0."""

    entry: ClassVar[str] = "rl.rewards.ground_truth:GroundTruth"

    kind: Literal["math"]
    answer: str = Field("answer", description="Column with the ground truth.")


class RewardModelReward(RewardConfig):
    """The score of a reward model that an earlier stage trained."""

    entry: ClassVar[str] = "rl.rewards.model:RewardModel"

    kind: Literal["reward_model"]
    from_: str = Field(alias="from", description="Id of the stage that trained the reward model.")
    batch: int = Field(256, ge=1, description="Completions scored at once.")


class PythonReward(RewardConfig):
    """A function of yours, called as TRL calls them: f(prompts, completions, **columns) -> list of floats."""

    entry: ClassVar[str] = "rl.rewards.plugin:Plugin"

    kind: Literal["python"]
    target: str = Field(
        description="file.py:function (beside the recipe, else in the working folder) or package.module:function."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments for every call.")


AnyReward = Annotated[MathReward | RewardModelReward | PythonReward, Field(discriminator="kind")]
