"""Configuration of the stage that writes a teacher's targets into a store. Imports no torch."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from gemsmith.contracts.planning import CheckContext, ForecastContext, StageForecast
from gemsmith.contracts.stage import OutputKind
from gemsmith.curation.teacher_store.manifest import MOST
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.forecast import PROMPTS, START_SECONDS, WEIGHT_BYTES, typical_tokens
from gemsmith.rl.teachers.taught_stage import TaughtStage


class TeacherCacheStage(TaughtStage):
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

    def check(self, context: CheckContext) -> None:
        """Add that a store has no room for more than so many entries per token."""
        super().check(context)
        if self.sampled_logits is not None and self.sampled_logits > MOST:
            context.add(
                ("sampled_logits",),
                f"found {self.sampled_logits}, expected at most {MOST}, as a store has no room for more",
            )

    def forecast(self, context: ForecastContext) -> StageForecast:
        """Return the forecast of asking the teachers once on each row."""
        size = context.size_of(self.policy)
        if size is None:
            return StageForecast()
        teachers = self.teacher_parameters(context)
        memory = float(WEIGHT_BYTES * (size.parameters + teachers))
        if context.throughput is None:
            return StageForecast(size, None, memory)
        flops = PROMPTS * typical_tokens(size) * 2.0 * teachers
        return StageForecast(size, None, memory, START_SECONDS + flops / context.throughput.training)
