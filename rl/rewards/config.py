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
    ground_truth: ClassVar[bool] = False
    """Whether it says what is true: an evaluation without `passes` takes the first such reward."""

    weight: float = Field(1.0, allow_inf_nan=False, description="Factor of this reward in the sum.")
    time_limit: float = Field(60.0, gt=0, description="Seconds that one call on a batch may take; then the run stops.")


class MathReward(RewardConfig):
    """1 where the completion's answer equals the ground truth, else 0."""

    entry: ClassVar[str] = "rl.rewards.ground_truth:GroundTruth"
    ground_truth: ClassVar[bool] = True

    kind: Literal["math"]
    answer: str = Field("answer", description="Column with the ground truth.")


class CodeReward(RewardConfig):
    """1 where the completion's program passes every test of its row, in a sandbox, else 0."""

    entry: ClassVar[str] = "rl.rewards.code:Code"
    ground_truth: ClassVar[bool] = True

    kind: Literal["code"]
    format: Literal["auto", "humaneval", "mbpp", "apps", "tests"] = Field(
        "auto", description="Whose columns hold the tests; auto: told by their names, row by row."
    )
    tests: str = Field("tests", description="Column with tests in gemsmith's own plain form.")
    partial: bool = Field(False, description="Give the share of passed cases instead of all or nothing.")
    allow_forgeable: bool = Field(False, description="Accept `script` tests, whose verdict a program can forge.")
    backend: Literal["auto", "bubblewrap", "unshare", "landlock", "http", "unsafe"] = Field(
        "auto", description="Sandbox; auto: bubblewrap, else unshare, else an error."
    )
    url: str | None = Field(None, description="Address of the server, for the backend http.")
    cpu: float = Field(10.0, gt=0, description="Seconds of processor time of one program, over all its cases.")
    case_cpu: float = Field(2.0, gt=0, description="Seconds of processor time of one case.")
    memory: int = Field(512, ge=32, description="Address space of one program, in MiB.")


class InstructionsReward(RewardConfig):
    """How many of a row's verifiable instructions (IFEval's 25 kinds) the completion follows."""

    entry: ClassVar[str] = "rl.rewards.instructions:Instructions"
    ground_truth: ClassVar[bool] = True

    kind: Literal["instructions"]
    instructions: str = Field("instruction_id_list", description="Column with the list of instruction ids.")
    kwargs: str = Field("kwargs", description="Column with the list of their keyword arguments, one mapping each.")
    strict: bool = Field(True, description="Judge the text as it is; else any of IFEval's eight loose readings of it.")
    score: Literal["share", "all"] = Field(
        "share", description="The share of instructions that are followed, or 1 only where all are."
    )


class RewardModelReward(RewardConfig):
    """The score of a reward model that an earlier stage trained."""

    entry: ClassVar[str] = "rl.rewards.model:RewardModel"

    kind: Literal["reward_model"]
    from_: str = Field(alias="from", description="Id of the stage that trained the reward model.")
    batch: int = Field(256, ge=1, description="Completions scored at once.")
    serve: Literal["average", "mean", "minimum", "lower_bound"] = Field(
        "average",
        description="The averaged model, or the kept members' rewards together: their mean, minimum, or mean minus "
        "`deviations` standard deviations (after Coste et al. 2023); all members are in memory, and each one scores.",
    )
    deviations: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="For lower_bound: standard deviations below the members' mean."
    )


class PythonReward(RewardConfig):
    """A function of yours, called as TRL calls them: f(prompts, completions, **columns) -> list of floats."""

    entry: ClassVar[str] = "rl.rewards.plugin:Plugin"

    kind: Literal["python"]
    target: str = Field(
        description="file.py:function (beside the recipe, else in the working folder) or package.module:function."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments for every call.")


AnyReward = Annotated[
    MathReward | CodeReward | InstructionsReward | RewardModelReward | PythonReward, Field(discriminator="kind")
]
