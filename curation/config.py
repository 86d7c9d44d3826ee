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
        ["{answer}"],
        min_length=1,
        description="Wordings with {answer} in place of the number; chosen with equal probability.",
    )
    copies: int = Field(1, ge=1, description="Demonstrations (and preference pairs) for each training prompt.")


class DataConfig(StrictModel):
    """Fields of every source. Templates such as "{question}" are filled from the columns of a row.

    A row becomes an example: a prompt, and those of answer (ground truth), demonstration, chosen and rejected that the
    section sets. A template that is a single column with a list of messages (role, content) is a conversation. As
    `prompt` it gives all turns up to the user's last one; as a completion it gives the last turn, the assistant's.
    `prompt`, `chosen` and `rejected` may therefore all name whole conversations. A hash of the prompt decides whether a
    row is for training or evaluation, so that a prompt is never in both.
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
    columns: list[str] = Field(default_factory=list, description="Further columns that reward functions receive.")
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
    size: int = Field(ge=1, le=10_000_000, description="Items to generate (duplicate prompts are dropped).")
    options: dict[str, Any] = Field(default_factory=dict, description="The task's own options.")
    prompt: str = Field("{question}", description="Template of the user's turn.")
    answer: str | None = Field("{answer}", description="Template of the ground truth.")


class FileData(DataConfig):
    """A source that reads one file. Its content is part of a stage's identity; `gemsmith validate` names a missing
    file.

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
    name: str = Field(
        description="Hub id, such as openai/gsm8k, or a folder with the files of a data set (parquet, JSON lines, "
        "CSV); a relative path is beside the recipe, else in the working folder."
    )
    subset: str | None = Field(None, description="Configuration of the data set.")
    split: str = Field("train", description="Split to read; the hold-out is taken from it.")
    revision: str | None = Field(None, description="Commit or tag, so that the data stays the same.")

    def local_files(self, root: Path) -> list[Path]:
        """Return the data set's folder, if it is on this disk."""
        found = find_local(root, self.name)
        return [] if found is None or not found.is_dir() else [found]


class PythonData(DataConfig):
    """Rows made by a Python function of yours, called as f(seed=..., **options); it returns dicts of columns."""

    reader: ClassVar[str] = "gemsmith.curation.sources.python:read_python"

    source: Literal["python"]
    target: str = Field(
        description="file.py:function (beside the recipe, else in the working folder) or package.module:function."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the call.")
    time_limit: float = Field(60.0, gt=0, description="Time limit for making the rows, in seconds.")

    def local_files(self, root: Path) -> list[Path]:
        """Return the function's file."""
        return [find_target(self.target, root).file]


class MixtureData(StrictModel):
    """Several sections combined; each row has its own `task`, or else the name of its section.

    A prompt stays on the side (training or evaluation) where its own section put it. Both sides are as large as the
    shares allow without repeating a prompt, and interleaved, so that any stretch of rows has about the same shares.
    """

    source: Literal["mixture"]
    of: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        min_length=1,
        description="Sections and their shares of the distinct prompts; shares are relative, and need not sum to 1.",
    )
    limit: int | None = Field(None, ge=1, description="Use at most about this many distinct prompts for training.")


class Mixture(MixtureData):
    """A mixture together with the sections that it names, as stages receive it."""

    sections: dict[str, "DataConfig | GeneratedData | Mixture"] = Field(description="The sections that `of` names.")

    @property
    def columns(self) -> list[str]:
        """Return the columns that the sections pass to reward functions; a row has None for a column its section
        lacks.
        """
        return list(dict.fromkeys(column for section in self.sections.values() for column in section.columns))


class GeneratedData(StrictModel):
    """Answers of a `generate` stage: the prompts of its data section, each with the answers that were kept.

    An answer is a row's demonstration. If another answer to the same prompt scored less, the two are also its
    preference pair. Prompts that the section holds out stay held out: the stage does not answer them.
    """

    refers_to: ClassVar[str] = "answers"

    source: Literal["generated"]
    from_: str = Field(alias="from", description="Id of the stage of kind generate.")

    @property
    def columns(self) -> list[str]:
        """Return the names of the columns that are passed to reward functions besides the fields of every row."""
        return []


class Generated(GeneratedData):
    """Generated data together with the section whose prompts were answered, as stages receive it."""

    section: DataConfig | Mixture | GeneratedData = Field(description="The data section of the stage in `from`.")
    folder: Path | None = Field(None, description="Output of the stage in `from`; not set while it is unknown.")

    @property
    def columns(self) -> list[str]:
        """Return the columns of the section whose prompts were answered."""
        return self.section.columns


AnyData = Annotated[
    ReasoningGymData | JsonLinesData | HubData | PythonData | MixtureData | GeneratedData,
    Field(discriminator="source"),
]
AnySource = DataConfig | Mixture | Generated
"""Argument of `gemsmith.curation.load.load_data`: a section together with all sections that it names."""
