"""The manifest of a store of targets: their origin, how they were sampled, and the shards with checksums.

`gemsmith.curation.teacher_store.writing` writes a store, `store.py` reads it. Imports no numpy, because recipes are
read with it.
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
    """Origin of a store's targets, and how they were sampled; two stores with the same `About` hold the same
    targets.
    """

    teacher: str = Field(description="Hash of the teacher's weights and of everything else that changes its answers.")
    teacher_name: str = Field(description="Name of the teacher in the recipe, for messages.")
    tokenizer: str = Field(description="Hash of the tokenizer's entries and their ids (`tokenizer_hash`).")
    vocabulary: int = Field(ge=1, description="Size V of the vocabulary; every id is below it.")
    k: int = Field(ge=1, description="Number of sampled entries per token.")
    mode: Literal["gumbel_renorm", "multinomial_counts", "topk"] = Field(description="How the entries were sampled.")
    temperature: float = Field(gt=0, description="Temperature of the teacher's softmax.")
    seed: int = Field(description="Seed of the sampling.")
    max_length: int = Field(
        description="Length limit; rows with more tokens, prompt and completion together, were left out."
    )
    data: str = Field(description="Hash of the rows' token ids, in their order (`data_hash`).")
    rows: int = Field(description="Number of rows.")

    @property
    def counted(self) -> bool:
        """Return True if an entry has a count."""
        return self.mode == "multinomial_counts"


class ShardRecord(StrictModel):
    """Record of a complete shard."""

    file: str = Field(description="Name of the file in the store's folder.")
    rows: int = Field(description="Number of rows in the shard.")
    tokens: int = Field(description="Number of completion tokens in the shard.")
    bytes: int = Field(description="Size of the file, in bytes.")
    sha256: str = Field(description="SHA-256 of the file.")


class Manifest(StrictModel):
    """The manifest of a store."""

    format: Literal["gemsmith targets"] = "gemsmith targets"
    version: Literal[1] = 1
    complete: bool = Field(description="Whether every row has been written.")
    about: About = Field(description="Origin of the targets.")
    shards: list[ShardRecord] = Field(description="Shards in the order of the rows.")
    sha256: str = Field("", description="SHA-256 of all fields above, so that a changed manifest is rejected.")

    @model_validator(mode="after")
    def _complete_with_all_rows(self) -> "Manifest":
        there = sum(record.rows for record in self.shards)
        if self.complete and there != self.about.rows:
            raise ValueError(f"it is marked complete, but its shards have {there} of {self.about.rows} rows")
        return self

    def sealed(self) -> "Manifest":
        """Return the manifest with the hash of its content in `sha256`."""
        content = self.model_dump_json(exclude={"sha256"})
        return self.model_copy(update={"sha256": hashlib.sha256(content.encode()).hexdigest()})


def tokenizer_hash(entries: dict[str, int]) -> str:
    """Return a hash that identifies a tokenizer: of its entries and their ids, in any order."""
    return hashlib.sha256(json.dumps(sorted(entries.items())).encode(errors="surrogatepass")).hexdigest()


def differs(found: About, asked: About) -> str | None:
    """Return the first difference of two stores, such as "temperature is 2.0, and 1.0 is expected"; None without
    one.
    """
    for name in About.model_fields:
        here, there = getattr(found, name), getattr(asked, name)
        if name != "teacher_name" and here != there:
            if name == "teacher":
                here, there = f"{found.teacher_name} ({here[:12]})", f"{asked.teacher_name} ({there[:12]})"
            elif isinstance(here, str) and name != "mode":
                here, there = here[:12], there[:12]
            return f"{name} is {here}, and {there} is expected"
    return None


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a store.

    Raises:
        UserError: the manifest is missing, damaged, changed or of another version.
    """
    path = folder / MANIFEST
    try:
        found = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{folder} is not a store of targets ({MANIFEST}: {error.strerror}); name a folder that "
            "`gemsmith teacher-cache` wrote."
        ) from error
    except ValidationError as error:
        raise UserError(
            f"{path} is damaged, or of another version of gemsmith ({error.errors()[0]['msg']}): {REMAKE}"
        ) from error
    if found.sha256 != found.sealed().sha256:
        raise UserError(
            f"{path} was changed or damaged (its checksum differs), so the content of its "
            f"shards is unknown. {REMAKE[0].upper()}{REMAKE[1:]}"
        )
    return found


def damage(folder: Path, record: ShardRecord) -> str | None:
    """Return what is wrong with a shard's file, as the end of a sentence that begins with its name; None if nothing
    is.
    """
    try:
        with (folder / record.file).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != record.bytes:
                return f"has {size} bytes where {record.bytes} were written"
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if digest == record.sha256 else "was changed or damaged: its checksum differs"
