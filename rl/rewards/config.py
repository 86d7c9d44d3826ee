"""Configuration of rewards. Imports no torch."""

import json
import math
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from gemsmith.contracts.planning import ForecastContext
from gemsmith.contracts.strict import StrictModel
from gemsmith.contracts.target import REWARDS, find_target
from gemsmith.reward_models.config import WarmStage


class RewardConfig(StrictModel):
    """Fields of every reward; a kind of reward is a subclass with a literal `kind`.

    `normalise`, `clip` and `gate` shape what is learnt (`gemsmith.rl.rewards.contributions`); an evaluation and a
    control take rewards as they come. `tasks` says everywhere which rows a reward scores.

    `entry` names the class that scores, as "package.module:Class": called with (name, config, stage), it satisfies
    `gemsmith.rl.rewards.reward.Reward`. Reading a recipe imports none of it.
    """

    entry: ClassVar[str]
    ground_truth: ClassVar[bool] = False
    """Whether it says what is true: an evaluation without `passes` takes the first such reward."""
    takes_ids: ClassVar[bool] = False
    """Whether it is given the column `completion_ids`, which is larger than all else together."""

    weight: float = Field(1.0, allow_inf_nan=False, description="Factor of this reward in the sum.")
    time_limit: float = Field(
        60.0, gt=0, allow_inf_nan=False, description="Seconds that one call on a batch may take; then the run stops."
    )
    normalise: Literal["none", "batch", "group", "running"] = Field(
        "none",
        description="Minus the mean, over the standard deviation: of the step's completions, of those of each prompt "
        "(group), or of all of the run so far (running); 0 where they are all alike.",
    )
    clip: list[float] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="[low, high]: nearest value between them, after `normalise` and before `weight`.",
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
        if self.gate is None and self.gate_above != 0:
            raise ValueError("gate_above is set without a gate: name the reward that it speaks of in `gate`")
        return self

    @property
    def shaped(self) -> bool:
        """Whether what is learnt from it differs from its value times its weight."""
        return self.normalise != "none" or self.clip is not None or self.gate is not None

    def applies_to(self, task: str | None) -> bool:
        """Whether it scores rows of this task."""
        return self.tasks is None or task in self.tasks

    def model_parameters(self, context: ForecastContext) -> int:
        """Return the number of weights of the reward models that the reward holds in memory."""
        return 0


class MathReward(RewardConfig):
    """1 where the completion's answer equals the ground truth, else 0."""

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.ground_truth:GroundTruth"
    ground_truth: ClassVar[bool] = True

    kind: Literal["math"]
    answer: str = Field("answer", description="Column with the ground truth.")


class CodeReward(RewardConfig):
    """1 where the completion's program passes every test of its row, in a sandbox, else 0."""

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.code:Code"
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

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.instructions:Instructions"
    ground_truth: ClassVar[bool] = True

    kind: Literal["instructions"]
    instructions: str = Field("instruction_id_list", description="Column with the list of instruction ids.")
    kwargs: str = Field("kwargs", description="Column with the list of their keyword arguments, one mapping each.")
    strict: bool = Field(True, description="Judge the text as it is; else any of IFEval's eight loose readings of it.")
    score: Literal["share", "all"] = Field(
        "share", description="The share of instructions that are followed, or 1 only where all are."
    )


class LengthReward(RewardConfig):
    """How well the completion's length fits: 1 from `low` to `high`, falling linearly to 0 at `slack` beyond either."""

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.length:Length"

    kind: Literal["length"]
    unit: Literal["words", "characters"] = Field(
        "words",
        description="words: parts between white space (not for Chinese, Japanese or Thai); or Unicode characters.",
    )
    low: int | None = Field(None, ge=0, description="Units that are enough; null: any number is.")
    high: int | None = Field(None, ge=0, description="Units that are not too many; null: no number is.")
    slack: int = Field(ge=0, description="Units below `low` or above `high` at which it is 0; 0: at once.")

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("a length reward needs `low`, `high`, or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"`low` is {self.low}, which is above `high`, {self.high}")
        return self


class LanguageReward(RewardConfig):
    """1 where the completion is in the language of the prompt, 0 in another, None where that cannot be told.

    At most one of the two fields names the language otherwise.
    """

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.language:Language"

    kind: Literal["language"]
    expect: str | None = Field(
        None, pattern="^[a-z]{2}$", description="The language of every completion, an ISO 639-1 code such as de."
    )
    language: str | None = Field(None, description="Column with the ISO 639-1 code of each completion's language.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.expect is not None and self.language is not None:
            raise ValueError("give `expect` (one language for all) or `language` (a column), not both")
        return self


def _groups(pattern: str) -> int:
    """How many groups a regular expression has."""
    import regex

    try:
        return regex.compile(pattern).groups
    except regex.error as error:
        where = f" at position {error.pos}" if error.pos is not None else ""
        raise ValueError(f"`{pattern}` is not a regular expression: {error.msg}{where}") from error


class FormatReward(RewardConfig):
    """The share of the given demands on its form that a completion meets; give at least one."""

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.format:Format"

    kind: Literal["format"]
    pattern: str | None = Field(None, description="A regular expression (of the package regex) that must be found.")
    whole: bool = Field(False, description="The pattern must match all of the completion.")
    json_: bool = Field(False, alias="json", description="All of the completion is one JSON value; no fence.")
    keys: list[str] = Field(default_factory=list, description="Keys of the JSON value, which must then be an object.")
    boxed: bool = Field(False, description=r"There is exactly one \boxed{...}, closed and not empty.")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            _groups(pattern)
        return pattern

    @model_validator(mode="after")
    def _demands(self) -> Self:
        if self.pattern is None and not self.json_ and not self.boxed:
            raise ValueError("a format reward needs `pattern`, `json: true` or `boxed: true`")
        if self.whole and self.pattern is None:
            raise ValueError("`whole` says how `pattern` must match, and there is none")
        if self.keys and not self.json_:
            raise ValueError("`keys` are those of the JSON value: set `json: true` with them")
        return self


class RefusalReward(RewardConfig):
    """1 where the completion refuses a prompt that should be refused, or answers one that should be answered, else 0.

    Refusals are told by phrases in English only.
    """

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.refusal:Refusal"

    kind: Literal["refusal"]
    label: str = Field("label", description="Column that says whether the prompt should be refused.")
    refuse: list[str | bool | int] = Field(["unsafe", True], min_length=1, description="Its values that mean: refuse.")
    answer: list[str | bool | int] = Field(["safe", False], min_length=1, description="Its values that mean: answer.")
    partial: Literal["refuses", "answers", "neither"] = Field(
        "refuses", description="What a partial refusal (it refuses, and then helps) counts as; neither: always 0."
    )


class HttpReward(RewardConfig):
    """What a judge says of the completion, a model behind an OpenAI-style chat endpoint; mapped to [0, 1]."""

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.http:HttpJudge"

    kind: Literal["http"]
    url: str = Field(
        pattern="^https?://[!-~]+$",
        description="Address of the endpoint up to /v1, or of its /chat/completions; no proxy or redirect is followed.",
    )
    model: str = Field(description="Name of the model at the endpoint.")
    prompt: str = Field(description="What the judge is asked: text with {prompt}, {completion} and columns.")
    system: str | None = Field(None, description="System text for the judge.")
    scale: list[float] = Field(
        min_length=2, max_length=2, description="The worst and the best number of the judge: they become 0 and 1."
    )
    number: str | None = Field(
        None, description="Regular expression whose one group is the number; null: the last number of the answer."
    )
    api_key_env: str | None = Field(None, description="Environment variable with the key, sent as a bearer token.")
    at_once: int = Field(16, ge=1, le=256, description="Requests in flight.")
    max_tokens: int = Field(512, ge=1, description="Longest answer of the judge.")

    @field_validator("prompt")
    @classmethod
    def _template(cls, prompt: str) -> str:
        names = {name for _, name, *_ in Formatter().parse(prompt)}
        if "completion" not in names:
            raise ValueError("the judge's prompt has no {completion}; double other braces")
        return prompt

    @field_validator("scale")
    @classmethod
    def _ascending(cls, scale: list[float]) -> list[float]:
        if not -math.inf < scale[0] < scale[1] < math.inf:
            raise ValueError(f"the scale goes from the worst to the best number, such as [1, 10]; found {scale}")
        return scale

    @field_validator("number")
    @classmethod
    def _one_group(cls, number: str | None) -> str | None:
        groups = 1 if number is None else _groups(number)
        if groups != 1:
            raise ValueError(f"`{number}` has {groups} groups; the one group is the number")
        return number


class RewardModelReward(RewardConfig):
    """The score of a reward model that an earlier stage trained."""

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.model:RewardModel"

    refers_to: ClassVar[str] = "reward_model"

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

    def model_parameters(self, context: ForecastContext) -> int:
        """Return the number of weights of the average, or of all kept members together."""
        size, trained = context.sizes.get(self.from_), context.stages[self.from_]
        if size is None:
            return 0
        several = isinstance(trained, WarmStage) and self.serve != "average"
        return size.parameters * (trained.kept_members if several else 1)  # type: ignore[attr-defined]


class PythonReward(RewardConfig):
    """A function or class of yours, called as TRL calls them: f(prompts, completions, **columns) -> list of floats."""

    entry: ClassVar[str] = "gemsmith.rl.rewards.plugins.plugin:Plugin"
    takes_ids: ClassVar[bool] = True

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

    @field_validator("options")
    @classmethod
    def _plain(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name, value in options.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"option {name} is a {type(value).__name__}; expected text, numbers, true, false, null, and lists "
                    "and mappings of them: quote a date"
                ) from error
        return options

    def local_files(self, root: Path) -> list[Path]:
        """Return the file of the function or class."""
        return [find_target(self.target, root, REWARDS).file]


AnyReward = Annotated[
    MathReward
    | CodeReward
    | InstructionsReward
    | LengthReward
    | LanguageReward
    | FormatReward
    | RefusalReward
    | HttpReward
    | RewardModelReward
    | PythonReward,
    Field(discriminator="kind"),
]
