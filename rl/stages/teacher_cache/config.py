"""Configuration of the stage that writes a teacher's targets into a store. Imports no torch."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from gemsmith.contracts.stage import OutputKind, StageConfig
from gemsmith.policy.config import PolicyConfig
from gemsmith.rl.teachers.config import TaughtConfig


class TeacherCacheStage(StageConfig, TaughtConfig):
    """A teacher's targets for a data section's demonstrations, written once; any number of students read them."""

    entry: ClassVar[str] = "gemsmith.rl.stages.teacher_cache.stage:run"
    version: ClassVar[int] = 2  # entries are drawn from uniform numbers
    produces: ClassVar[OutputKind] = "targets"

    kind: Literal["teacher_cache"]
    policy: PolicyConfig | None = Field(
        None, description="Whose tokenizer makes tokens of the demonstrations; none: the recipe's policy."
    )
    data: str = Field(description="Name of a data section with demonstrations; the teacher is asked on their tokens.")
    max_length: int = Field(
        1024, ge=8, description="Longest prompt and completion together, in tokens; longer rows are left out."
    )
    batch: int = Field(8, ge=1, description="Rows that the teacher is asked about at once, and that are in memory.")

    @model_validator(mode="after")
    def _asks_no_store(self) -> "TeacherCacheStage":
        if any(share.teacher.store is not None for share in self.shares):
            raise ValueError("a store is what this stage writes: name the teacher, by `model`, `from` or `server`")
        return self
