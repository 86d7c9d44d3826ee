"""The table of contents of a store of targets: what they are of, how they were drawn, and its shards with checksums.

`gemsmith.curation.teacher_store.writing` writes a store, `store.py` reads it. Imports no numpy, as recipes are read.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.strict import StrictModel

MANIFEST = "manifest.json"
MOST = 65_535  # entries of a token that their count of 16 bits has room for
REMAKE = "put the file back as it was, or delete the folder and write the targets again."


class About(StrictModel):
    """What a store's targets are of, and how they were drawn; two stores with the same `About` are the same."""

    teacher: str = Field(description="A hash of the teacher's weights and of whatever else changes its answers.")
    teacher_name: str = Field(description="What the recipe called the teacher, for people.")
    tokenizer: str = Field(description="A hash of the tokenizer's entries and their ids (`tokenizer_hash`).")
    vocabulary: int = Field(ge=1, description="V, above every id.")
    k: int = Field(ge=1, description="Entries drawn a token.")
    mode: Literal["gumbel_renorm", "multinomial_counts", "topk"] = Field(description="How they were drawn.")
    temperature: float = Field(gt=0, description="Of the teacher's softmax.")
    seed: int = Field(description="Of the draws.")
    max_length: int = Field(description="Rows with more tokens, prompt and completion together, were left out.")
    data: str = Field(description="A hash of the rows' token ids, in their order (`data_hash`).")
    rows: int = Field(description="How many there are.")

    @property
    def counted(self) -> bool:
        """Whether an entry has a count."""
        return self.mode == "multinomial_counts"


class ShardRecord(StrictModel):
    """A shard that is whole."""

    file: str = Field(description="Its name in the store's folder.")
    rows: int = Field(description="Rows in it.")
    tokens: int = Field(description="Completion tokens in it.")
    bytes: int = Field(description="Size of the file.")
    sha256: str = Field(description="Of the file.")


class Manifest(StrictModel):
    """The store's table of contents."""

    format: Literal["gemsmith targets"] = "gemsmith targets"
    version: Literal[1] = 1
    complete: bool = Field(description="Whether every row has been written.")
    about: About = Field(description="What it holds.")
    shards: list[ShardRecord] = Field(description="In the order of the rows.")
    sha256: str = Field("", description="Of all that stands above it, so that no other hand's change is read.")

    @model_validator(mode="after")
    def _complete_with_all_rows(self) -> "Manifest":
        there = sum(record.rows for record in self.shards)
        if self.complete and there != self.about.rows:
            raise ValueError(f"it says that it is complete, and its shards have {there} of {self.about.rows} rows")
        return self

    def sealed(self) -> "Manifest":
        """With the hash of its content in `sha256`."""
        content = self.model_dump_json(exclude={"sha256"})
        return self.model_copy(update={"sha256": hashlib.sha256(content.encode()).hexdigest()})


def tokenizer_hash(entries: dict[str, int]) -> str:
    """What identifies a tokenizer: a hash of its entries and their ids, whatever order they are in."""
    return hashlib.sha256(json.dumps(sorted(entries.items())).encode(errors="surrogatepass")).hexdigest()


def differs(found: About, asked: About) -> str | None:
    """The first thing in which two stores differ, as "temperature is 2.0, and 1.0 is asked for"; None: nothing."""
    for name in About.model_fields:
        here, there = getattr(found, name), getattr(asked, name)
        if name != "teacher_name" and here != there:
            if name == "teacher":
                here, there = f"{found.teacher_name} ({here[:12]})", f"{asked.teacher_name} ({there[:12]})"
            elif isinstance(here, str) and name != "mode":
                here, there = here[:12], there[:12]
            return f"{name} is {here}, and {there} is asked for"
    return None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a store.

    Raises:
        UserError: there is none, or it is damaged, changed or of another version.
    """
    path = folder / MANIFEST
    try:
        found = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{folder} is no store of targets (its {MANIFEST}: {error.strerror}): name a folder that "
            "`gemsmith teacher-cache` wrote."
        ) from error
    except ValidationError as error:
        raise UserError(
            f"{path} is damaged, or of another version of gemsmith ({error.errors()[0]['msg']}): {REMAKE}"
        ) from error
    if found.sha256 != found.sealed().sha256:
        raise UserError(
            f"{path} is not what was written, its checksum differs: it was changed by hand or damaged, and what its "
            f"shards hold is not known without it. {REMAKE[0].upper()}{REMAKE[1:]}"
        )
    return found


def damage(folder: Path, record: ShardRecord) -> str | None:
    """What is wrong with a shard's file, as the end of a sentence that begins with its name; None: nothing."""
    try:
        with (folder / record.file).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != record.bytes:
                return f"has {size} bytes where {record.bytes} were written"
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if digest == record.sha256 else "is not what was written: its checksum differs"
