"""Configuration of rewards. Imports no torch."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from contracts.strict import StrictModel


class RewardConfig(StrictModel):
    """Fields of every reward; a kind of reward is a subclass with a literal `kind`.

    `normalise`, `clip` and `gate` shape what is learnt (`rl.rewards.contributions`); an evaluation and a control take
    rewards as they come. `tasks` says everywhere which rows a reward scores.

    `entry` names the class that scores, as "package.module:Class": called with (name, config, stage), it satisfies
    `rl.rewards.reward.Reward`. Reading a recipe imports none of it.
    """

    entry: ClassVar[str]
    ground_truth: ClassVar[bool] = False
    """Whether it says what is true: an evaluation without `passes` takes the first such reward."""

    weight: float = Field(1.0, allow_inf_nan=False, description="Factor of this reward in the sum.")
    time_limit: float = Field(60.0, gt=0, description="Seconds that one call on a batch may take; then the run stops.")
    normalise: Literal["none", "batch", "group", "running"] = Field(
        "none",
        description="Minus the mean, over the standard deviation: of the step's completions, of those of each prompt "
        "(group), or of all of the run so far (running); 0 where they are all alike.",
    )
    clip: tuple[float, float] | None = Field(
        None, description="[low, high]: nearest value between them, after `normalise` and before `weight`."
    )
    gate: str | None = Field(
        None,
        description="Another reward of the stage: this one counts only where that one does and is above `gate_above`; "
        "elsewhere it contributes the least that it does anywhere in the step, at most 0.",
    )
    gate_above: float = Field(0.0, allow_inf_nan=False, description="What the gate's own value must be above.")
    tasks: list[str] | None = Field(
        None, min_length=1, description="Values of the `task` column of the rows that it scores; none: every row."
    )

    @model_validator(mode="after")
    def _clip_is_a_range(self) -> Self:
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ValueError(f"clip is [{self.clip[0]:g}, {self.clip[1]:g}]: expected [low, high] with low < high")
        return self

    @model_validator(mode="after")
    def _threshold_has_a_gate(self) -> Self:
        if self.gate is None and "gate_above" in self.model_fields_set:
            raise ValueError("gate_above is set without a gate: name the reward that it speaks of in `gate`")
        return self

    @property
    def shaped(self) -> bool:
        """Whether what is learnt from it differs from its value times its weight."""
        return self.normalise != "none" or self.clip is not None or self.gate is not None

    def applies_to(self, task: str | None) -> bool:
        """Whether it scores rows of this task."""
        return self.tasks is None or task in self.tasks


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


class PythonReward(RewardConfig):
    """A function or class of yours, called as TRL calls them: f(prompts, completions, **columns) -> list of floats."""

    entry: ClassVar[str] = "rl.rewards.plugin:Plugin"

    kind: Literal["python"]
    target: str = Field(
        description="file.py:function (beside the recipe, else in the working folder), package.module:function, or the "
        "bare name of an installed package's entry point in the group gemsmith.rewards; a class in place of a function."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments for every call of a function, or for constructing a class."
    )
    memory: int | None = Field(
        None,
        ge=64,
        description="MiB of resident memory that its process and all that it started may hold together; then the run "
        "stops. Looked at every 0.1 s, on Linux. None: no limit. (Not address space: torch reserves far more than it "
        "uses.)",
    )


AnyReward = Annotated[
    MathReward | CodeReward | InstructionsReward | RewardModelReward | PythonReward, Field(discriminator="kind")
]
