"""Configuration of data sources. Imports no torch."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from gemsmith.contracts.local import find_local
from gemsmith.contracts.strict import StrictModel
from gemsmith.contracts.target import find_target


class SyntheticDemonstrations(StrictModel):
    """Demonstrations and preference pairs made from ground-truth numbers: some right, some wrong, in several styles."""

    right: float = Field(0.5, ge=0, le=1, description="Share of demonstrations with the true answer.")
    spread: int = Field(9, ge=1, description="Largest distance of a wrong answer from the true one.")
    styles: list[str] = Field(
        ["{answer}"], min_length=1, description="Wordings; {answer} stands for the number; drawn with equal chance."
    )
    copies: int = Field(1, ge=1, description="Demonstrations (and preference pairs) for each training prompt.")


class DataConfig(StrictModel):
    """Fields of every source. Templates such as "{question}" are filled from the columns of a row.

    A row becomes an example with a prompt and whichever of answer (ground truth), demonstration, chosen and rejected
    are mapped. A template that is one column with a list of messages (role, content) is a conversation: as `prompt` its
    turns up to the user's last, as a completion its last turn, the assistant's; `prompt`, `chosen` and `rejected` may
    so all name whole conversations. Rows are split by a hash of their prompt, so that a prompt is never on both sides.
    """

    reader: ClassVar[str]
    """"package.module:function" that yields the rows (`curation.sources.rows.SourceRow`) of a section."""

    prompt: str = Field("{prompt}", description="Template of the user's turn.")
    system: str | None = Field(None, description="System text; Gemma folds it into the first user turn.")
    answer: str | None = Field(None, description="Template of the ground truth.")
    demonstration: str | None = Field(None, description="Template of a completion to imitate.")
    chosen: str | None = Field(None, description="Template of the preferred completion.")
    rejected: str | None = Field(None, description="Template of the other completion.")
    task: str | None = Field(None, description="Template of the task name that routes rewards.")
    columns: list[str] = Field(default_factory=list, description="Further columns to hand to reward functions.")
    holdout: float = Field(0.1, ge=0, lt=1, description="Share of prompts kept for evaluation.")
    limit: int | None = Field(None, ge=1, description="Use at most this many distinct prompts.")
    synthesise: SyntheticDemonstrations | None = Field(
        None, description="Make demonstrations and preference pairs from the answers, which must be numbers."
    )


class ReasoningGymData(DataConfig):
    """Procedural tasks with verifiable answers from reasoning-gym; needs no download."""

    reader: ClassVar[str] = "gemsmith.curation.sources.reasoning_gym:read_reasoning_gym"

    source: Literal["reasoning_gym"]
    task: str = Field(description="A reasoning-gym task such as chain_sum; also the task name that routes rewards.")
    size: int = Field(ge=1, description="Items to generate (duplicate prompts are dropped).")
    options: dict[str, Any] = Field(default_factory=dict, description="The task's own options.")
    prompt: str = Field("{question}", description="Template of the user's turn.")
    answer: str | None = Field("{answer}", description="Template of the ground truth.")


class FileData(DataConfig):
    """A source that reads one file. Its content counts in a stage's identity; `gemsmith validate` names a missing file.

    Attributes:
        format: the format with its article, for messages, such as "a JSON lines file".
    """

    format: ClassVar[str]

    path: str = Field(description="The file; a relative path is beside the recipe, else in the working folder.")

    def local_files(self, root: Path) -> list[Path]:
        """Return the file."""
        found = find_local(root, self.path)
        return [] if found is None else [found]


class JsonLinesData(FileData):
    """Rows of a JSON lines file."""

    reader: ClassVar[str] = "gemsmith.curation.sources.json_lines:read_json_lines"
    format: ClassVar[str] = "a JSON lines file"

    source: Literal["jsonl"]


class HubData(DataConfig):
    """A data set of the Hugging Face hub."""

    reader: ClassVar[str] = "gemsmith.curation.sources.hub:read_hub"

    source: Literal["hub"]
    name: str = Field(description="Hub id, such as openai/gsm8k.")
    subset: str | None = Field(None, description="Configuration of the data set.")
    split: str = Field("train", description="Split to read; the hold-out is taken from it.")
    revision: str | None = Field(None, description="Commit or tag, so that the data stays the same.")


class PythonData(DataConfig):
    """Rows made by a function of yours, called as f(seed=..., **options) -> dicts of columns."""

    reader: ClassVar[str] = "gemsmith.curation.sources.python:read_python"

    source: Literal["python"]
    target: str = Field(
        description="file.py:function (beside the recipe, else in the working folder) or package.module:function."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the call.")
    time_limit: float = Field(60.0, gt=0, description="Seconds that making the rows may take.")

    def local_files(self, root: Path) -> list[Path]:
        """Return the function's file."""
        return [find_target(self.target, root).file]


class MixtureData(StrictModel):
    """Several sections as one, each row with the `task` that it has, or else with its section's name.

    A prompt keeps the side that its own section put it on. Both sides are as large as the shares allow with no prompt
    taken twice, and interleaved, so that any stretch of rows has about the same shares.
    """

    source: Literal["mixture"]
    of: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        min_length=1,
        description="Sections and their shares of the distinct prompts; shares are relative, and need not sum to 1.",
    )
    limit: int | None = Field(None, ge=1, description="Use at most about this many distinct prompts for training.")


class Mixture(MixtureData):
    """A mixture together with the sections that it names: what stages are given, so that they need no other."""

    sections: dict[str, "DataConfig | GeneratedData | Mixture"] = Field(description="The sections that `of` names.")

    @property
    def columns(self) -> list[str]:
        """What the sections hand to reward functions, together; a row has None where its own section has none."""
        return list(dict.fromkeys(column for section in self.sections.values() for column in section.columns))


class GeneratedData(StrictModel):
    """What a stage of kind generate has kept: the prompts of its data section, each with answers of its policy.

    An answer is a row's demonstration; where another answer to the same prompt scored less, the two are also its
    preference pair. The prompts that the section holds out stay held out: the stage asks none of them.
    """

    refers_to: ClassVar[str] = "answers"

    source: Literal["generated"]
    from_: str = Field(alias="from", description="Id of the stage of kind generate.")

    @property
    def columns(self) -> list[str]:
        """What is handed to reward functions beside the fields of every row."""
        return []


class Generated(GeneratedData):
    """Generated data together with the section whose prompts were asked: what stages are given."""

    section: DataConfig | Mixture | GeneratedData = Field(description="The data section of the stage in `from`.")
    folder: Path | None = Field(None, description="Output of the stage in `from`; none: it is not known yet.")

    @property
    def columns(self) -> list[str]:
        """Those of the section whose prompts were asked."""
        return self.section.columns


AnyData = Annotated[
    ReasoningGymData | JsonLinesData | HubData | PythonData | MixtureData | GeneratedData,
    Field(discriminator="source"),
]
AnySource = DataConfig | Mixture | Generated
"""What `gemsmith.curation.load.load_data` reads: a section with all that it names put in."""
