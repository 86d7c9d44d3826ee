"""Configuration of rewards. Imports no torch."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from gemsmith.contracts.planning import ForecastContext
from gemsmith.contracts.strict import StrictModel
from gemsmith.contracts.target import REWARDS, find_target
from gemsmith.reward_models.config import WarmStage


class RewardConfig(StrictModel):
    """Fields shared by all rewards; each kind of reward is a subclass with a literal `kind`.

    `normalise`, `clip` and `gate` change what the policy learns from (`gemsmith.rl.rewards.contributions`);
    evaluations and controls use raw rewards. `tasks` selects the rows that a reward scores, everywhere.

    `entry` names the scoring class as "package.module:Class". It is constructed with (name, config, stage) and
    implements `gemsmith.rl.rewards.reward.Reward`. Reading a recipe does not import it.
    """

    entry: ClassVar[str]
    ground_truth: ClassVar[bool] = False
    """True if the reward checks correctness: an evaluation without `passes` uses the first such reward."""
    takes_ids: ClassVar[bool] = False
    """True if the reward receives the column `completion_ids`, which is larger than all other columns together."""

    weight: float = Field(1.0, allow_inf_nan=False, description="Factor of this reward in the sum.")
    time_limit: float = Field(
        60.0,
        gt=0,
        allow_inf_nan=False,
        description="Time limit of one call on a batch, in seconds; the run stops if it is exceeded.",
    )
    normalise: Literal["none", "batch", "group", "running"] = Field(
        "none",
        description="Standardisation: subtracts the mean and divides by the standard deviation of the step's "
        "completions (batch), of each prompt's completions (group), or of all completions so far (running); 0 if all "
        "values are equal.",
    )
    clip: list[float] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="[low, high]: bounds of the value, applied after `normalise` and before `weight`.",
    )
    gate: str | None = Field(
        None,
        description="Name of another reward of the stage. This reward counts only where that one counts and is above "
        "`gate_above`; elsewhere it contributes its smallest contribution in the step, at most 0.",
    )
    gate_above: float = Field(
        0.0, allow_inf_nan=False, description="Threshold that the raw value of `gate` must exceed."
    )
    tasks: list[str] | None = Field(
        None, min_length=1, description="Values of the `task` column of the rows to score; not set: every row."
    )

    cut_off: Literal["score", "penalty", "none"] = Field(
        "score",
        description="Treatment of a completion that `max_tokens` cut off. score: like any other. penalty: its value is "
        "minus `cut_off_penalty`. none: it is left out; in the sum it counts as the mean of the prompt's other "
        "completions, so that it neither gains nor loses.",
    )
    cut_off_penalty: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="With `cut_off: penalty`: a cut-off completion's value, negated."
    )

    @model_validator(mode="after")
    def _penalty_has_its_use(self) -> Self:
        if self.cut_off != "penalty" and self.cut_off_penalty != 1.0:
            raise ValueError(
                f"cut_off_penalty is set, but cut_off is {self.cut_off}: set `cut_off: penalty`, or remove it"
            )
        return self

    @model_validator(mode="after")
    def _clip_is_a_range(self) -> Self:
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ValueError(f"clip is [{self.clip[0]:g}, {self.clip[1]:g}], expected [low, high] with low < high")
        return self

    @model_validator(mode="after")
    def _threshold_has_a_gate(self) -> Self:
        if self.gate is None and self.gate_above != 0:
            raise ValueError(
                "gate_above is set without `gate`: set `gate` to the reward that it applies to, or remove it"
            )
        return self

    @property
    def shaped(self) -> bool:
        """Return True if normalisation, clipping or a gate changes weight * value."""
        return self.normalise != "none" or self.clip is not None or self.gate is not None

    def applies_to(self, task: str | None) -> bool:
        """Return True if the reward scores rows of this task."""
        return self.tasks is None or task in self.tasks

    def left_out(self, columns: Mapping[str, Sequence[Any]]) -> list[bool]:
        """Return, for each completion of a batch, True if it was cut off and `cut_off` leaves it out.

        Args:
            columns: the batch's columns; `task` and `finished` are read.
        """
        size = max((len(values) for values in columns.values()), default=0)
        if self.cut_off != "none":
            return [False] * size
        finished, tasks = columns.get("finished") or [True] * size, columns.get("task") or [None] * size
        return [not ended and self.applies_to(task) for ended, task in zip(finished, tasks, strict=True)]

    def model_parameters(self, context: ForecastContext) -> int:
        """Return the number of parameters of the reward models that the reward keeps in memory."""
        return 0


class MathReward(RewardConfig):
    """Mathematics reward: 1 if the completion's answer equals the ground truth, else 0."""

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.ground_truth:GroundTruth"
    ground_truth: ClassVar[bool] = True

    kind: Literal["math"]
    answer: str = Field("answer", description="Column with the ground truth.")


class CodeReward(RewardConfig):
    """Code reward: 1 if the completion's program passes all tests of its row in a sandbox, else 0."""

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.code:Code"
    ground_truth: ClassVar[bool] = True

    kind: Literal["code"]
    format: Literal["auto", "humaneval", "mbpp", "apps", "tests"] = Field(
        "auto", description="Data set whose columns hold the tests; auto: detected per row from the column names."
    )
    tests: str = Field("tests", description="Column with tests in gemsmith's own format.")
    partial: bool = Field(False, description="Return the share of passed test cases instead of 0 or 1.")
    allow_forgeable: bool = Field(False, description="Accept `script` tests, whose verdict a program can forge.")
    backend: Literal["auto", "bubblewrap", "unshare", "landlock", "http", "unsafe"] = Field(
        "auto", description="Sandbox; auto: bubblewrap if available, else unshare, else an error."
    )
    url: str | None = Field(None, description="URL of the sandbox server, for the backend http.")
    cpu: float = Field(
        10.0, gt=0, description="Limit of a program's processor time over all its test cases, in seconds."
    )
    case_cpu: float = Field(2.0, gt=0, description="Limit of the processor time of one test case, in seconds.")
    memory: int = Field(512, ge=32, description="Limit of a program's address space, in MiB.")


class InstructionsReward(RewardConfig):
    """Instructions reward: the share of a row's verifiable instructions (IFEval's 25 kinds) that are followed."""

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.instructions:Instructions"
    ground_truth: ClassVar[bool] = True

    kind: Literal["instructions"]
    instructions: str = Field("instruction_id_list", description="Column with the list of instruction ids.")
    kwargs: str = Field("kwargs", description="Column with the list of keyword arguments, a mapping per instruction.")
    strict: bool = Field(
        True,
        description="Check the text as it is; false: accept if any of IFEval's eight loose variants passes.",
    )
    score: Literal["share", "all"] = Field(
        "share", description="Value. share: the share of instructions followed. all: 1 if all are followed, else 0."
    )


class LengthReward(RewardConfig):
    """Length reward: 1 for lengths from `low` to `high`, falling linearly to 0 at `slack` units outside this range."""

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.length:Length"

    kind: Literal["length"]
    unit: Literal["words", "characters"] = Field(
        "words",
        description="Unit of length. words: parts separated by white space (not for Chinese, Japanese or Thai). "
        "characters: Unicode characters.",
    )
    low: int | None = Field(None, ge=0, description="Smallest length with the full reward; not set: no lower bound.")
    high: int | None = Field(None, ge=0, description="Largest length with the full reward; not set: no upper bound.")
    slack: int = Field(
        ge=0, description="Distance from the range at which the reward reaches 0, in units; 0: anywhere outside it."
    )

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("found neither `low` nor `high`: set one of them, or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"`low` is {self.low} and `high` is {self.high}: `low` must not be above `high`")
        return self


class LanguageReward(RewardConfig):
    """Language reward: 1 if the completion is in the expected language, 0 if in another, None if undetermined.

    The expected language is the prompt's, unless `expect` or `language` is set.
    """

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.language:Language"

    kind: Literal["language"]
    expect: str | None = Field(
        None,
        pattern="^[a-z]{2}$",
        description="Expected language of all completions, as an ISO 639-1 code such as de; not set: the prompt's.",
    )
    language: str | None = Field(
        None, description="Column with the ISO 639-1 code of each completion's expected language."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.expect is not None and self.language is not None:
            raise ValueError(
                "found both `expect` (one language for all rows) and `language` (a column): remove one of them"
            )
        return self


def _groups(pattern: str) -> int:
    """Return the number of groups of a regular expression; raise ValueError if it does not compile."""
    import regex

    try:
        return regex.compile(pattern).groups
    except regex.error as error:
        where = f" at position {error.pos}" if error.pos is not None else ""
        raise ValueError(f"`{pattern}` is not a regular expression: {error.msg}{where}") from error


class FormatReward(RewardConfig):
    """Format reward: the share of the configured checks that a completion passes; configure at least one."""

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.format:Format"

    kind: Literal["format"]
    pattern: str | None = Field(None, description="Check for a match of this regular expression (package regex).")
    whole: bool = Field(False, description="Require `pattern` to match the whole completion.")
    json_: bool = Field(
        False, alias="json", description="Check that the whole completion is one JSON value, without a code fence."
    )
    keys: list[str] = Field(
        default_factory=list, description="Keys that the JSON value must have; it must then be an object."
    )
    boxed: bool = Field(False, description=r"Check for exactly one \boxed{...}, closed and not empty.")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            _groups(pattern)
        return pattern

    @model_validator(mode="after")
    def _demands(self) -> Self:
        if self.pattern is None and not self.json_ and not self.boxed:
            raise ValueError("found no check: set `pattern`, `json: true` or `boxed: true`")
        if self.whole and self.pattern is None:
            raise ValueError("`whole` is set without `pattern`: set `pattern`, or remove `whole`")
        if self.keys and not self.json_:
            raise ValueError("`keys` is set without `json: true`: set `json: true`, or remove `keys`")
        return self


class RefusalReward(RewardConfig):
    """Refusal reward: 1 if the completion refuses or answers as the prompt's label demands, else 0.

    Refusals are recognised by English phrases only.
    """

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.refusal:Refusal"

    kind: Literal["refusal"]
    label: str = Field("label", description="Column with the label of the prompt.")
    refuse: list[str | bool | int] = Field(
        ["unsafe", True], min_length=1, description="Labels of prompts that should be refused."
    )
    answer: list[str | bool | int] = Field(
        ["safe", False], min_length=1, description="Labels of prompts that should be answered."
    )
    partial: Literal["refuses", "answers", "neither"] = Field(
        "refuses",
        description="Treatment of a partial refusal, which refuses and then helps: as a refusal, as an answer, or as "
        "neither (reward 0).",
    )


class HttpReward(RewardConfig):
    """Judge reward: the number that a model behind an OpenAI-style chat endpoint gives a completion, in [0, 1]."""

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.http:HttpJudge"

    kind: Literal["http"]
    url: str = Field(
        pattern="^https?://[!-~]+$",
        description="URL of the endpoint, up to /v1 or /chat/completions. Proxies and redirects are not followed.",
    )
    model: str = Field(description="Name of the model at the endpoint.")
    prompt: str = Field(
        description="Template of the request to the judge, with {prompt}, {completion} and columns in braces."
    )
    system: str | None = Field(None, description="System message for the judge.")
    scale: list[float] = Field(
        min_length=2, max_length=2, description="[worst, best]: numbers of the judge that are mapped to 0 and 1."
    )
    number: str | None = Field(
        None,
        description="Regular expression whose only group captures the number; not set: the last number of the reply.",
    )
    api_key_env: str | None = Field(
        None, description="Environment variable that holds the API key, which is sent as a bearer token."
    )
    at_once: int = Field(16, ge=1, le=256, description="Maximum number of concurrent requests.")
    max_tokens: int = Field(512, ge=1, description="Maximum length of the judge's reply, in tokens.")

    @field_validator("prompt")
    @classmethod
    def _template(cls, prompt: str) -> str:
        names = {name for _, name, *_ in Formatter().parse(prompt)}
        if "completion" not in names:
            raise ValueError("found no {completion} in the template: add it, and double all literal braces")
        return prompt

    @field_validator("scale")
    @classmethod
    def _ascending(cls, scale: list[float]) -> list[float]:
        if not -math.inf < scale[0] < scale[1] < math.inf:
            raise ValueError(f"found {scale}, expected [worst, best] with worst < best, such as [1, 10]")
        return scale

    @field_validator("number")
    @classmethod
    def _one_group(cls, number: str | None) -> str | None:
        groups = 1 if number is None else _groups(number)
        if groups != 1:
            raise ValueError(f"`{number}` has {groups} groups, expected 1 group that captures the number")
        return number


class RewardModelReward(RewardConfig):
    """Reward-model reward: the score of a reward model that an earlier stage trained."""

    entry: ClassVar[str] = "gemsmith.rl.rewards.kinds.model:RewardModel"

    refers_to: ClassVar[str] = "reward_model"

    kind: Literal["reward_model"]
    from_: str = Field(alias="from", description="Id of the stage that trained the reward model.")
    cut_off: Literal["score", "penalty", "none"] = Field(
        "none",
        description="Treatment of a completion that `max_tokens` cut off. none: it is left out, because the model was "
        "trained on whole answers and would score it as if it had ended there; in the sum it counts as the mean of the "
        "prompt's other completions. score: it is scored so nevertheless. penalty: its value is minus "
        "`cut_off_penalty`.",
    )
    batch: int = Field(256, ge=1, description="Number of completions per forward pass.")
    serve: Literal["average", "mean", "minimum", "lower_bound"] = Field(
        "average",
        description="Model to score with. average: the averaged model. mean, minimum, lower_bound: the kept members' "
        "rewards, combined to their mean, their minimum, or their mean minus `deviations` standard deviations (after "
        "Coste et al. 2023); all members are then in memory and score every completion.",
    )
    deviations: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="Standard deviations below the mean, for `serve: lower_bound`."
    )

    def model_parameters(self, context: ForecastContext) -> int:
        """Return the number of parameters of the average, or of all kept members together."""
        size, trained = context.sizes.get(self.from_), context.stages[self.from_]
        if size is None:
            return 0
        several = isinstance(trained, WarmStage) and self.serve != "average"
        return size.parameters * (trained.kept_members if several else 1)  # type: ignore[attr-defined]


class PythonReward(RewardConfig):
    """User-defined reward, called as in TRL: f(prompts, completions, **columns) -> list of floats."""

    entry: ClassVar[str] = "gemsmith.rl.rewards.plugins.plugin:Plugin"
    takes_ids: ClassVar[bool] = True

    kind: Literal["python"]
    target: str = Field(
        description="Function or class: file.py:function (relative to the recipe, else to the working folder), "
        "package.module:function, or the name of an installed package's entry point in the group gemsmith.rewards."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments for each call of a function, or for a class's constructor."
    )
    memory: int | None = Field(
        None,
        ge=64,
        description="Limit of the resident memory of the reward's process and its descendants together, in MiB; the "
        "run stops if it is exceeded. Checked every 0.1 s, on Linux only. Not set: no limit. (Address space is not "
        "limited, because torch reserves far more than it uses.)",
    )

    @field_validator("options")
    @classmethod
    def _plain(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name, value in options.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"option {name} is a {type(value).__name__}, expected text, a number, true, false, null, or lists "
                    "and mappings of these: put a date in quotes"
                ) from error
        return options

    def local_files(self, root: Path) -> list[Path]:
        """Return the file that defines the function or class."""
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
