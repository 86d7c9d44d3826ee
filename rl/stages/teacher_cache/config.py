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
    """Computation of a teacher's targets for demonstrations, stored once and reusable by any number of students."""

    entry: ClassVar[str] = "gemsmith.rl.stages.teacher_cache.stage:run"
    version: ClassVar[int] = 2  # entries are drawn from uniform numbers
    produces: ClassVar[OutputKind] = "targets"

    kind: Literal["teacher_cache"]
    policy: PolicyConfig | None = Field(
        None, description="Policy whose tokenizer encodes the demonstrations. Not set: the recipe's `policy`."
    )
    data: str = Field(description="Name of a data section with demonstrations; the teacher scores their tokens.")
    max_length: int = Field(
        1024, ge=8, description="Largest length of prompt plus completion, in tokens; longer rows are dropped."
    )
    batch: int = Field(8, ge=1, description="Rows per forward pass or request of the teacher.")

    @model_validator(mode="after")
    def _asks_no_store(self) -> "TeacherCacheStage":
        if any(share.teacher.store is not None for share in self.shares):
            raise ValueError(
                "a teacher_cache stage writes a store and cannot read its targets from one: give the teacher by "
                "`model`, `from` or `server` instead of `store`"
            )
        return self

    def check(self, context: CheckContext) -> None:
        """Also report more sampled logits per token than a store can hold."""
        super().check(context)
        if self.sampled_logits is not None and self.sampled_logits > MOST:
            context.add(
                ("sampled_logits",),
                f"found {self.sampled_logits}, expected at most {MOST}, the limit of the store's format",
            )

    def forecast(self, context: ForecastContext) -> StageForecast:
        """Return the forecast of one pass of the teachers over each row."""
        size = context.size_of(self.policy)
        if size is None:
            return StageForecast()
        teachers = self.teacher_parameters(context)
        memory = float(WEIGHT_BYTES * (size.parameters + teachers))
        if context.throughput is None:
            return StageForecast(size, None, memory)
        flops = PROMPTS * typical_tokens(size) * 2.0 * teachers
        return StageForecast(size, None, memory, START_SECONDS + flops / context.throughput.training)
