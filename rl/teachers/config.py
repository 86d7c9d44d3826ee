"""Configuration of teachers. Imports no torch."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from gemsmith.contracts.local import find_local
from gemsmith.contracts.planning import ForecastContext
from gemsmith.contracts.strict import StrictModel
from gemsmith.curation.teacher_store.manifest import MANIFEST
from gemsmith.policy.config import LONGEST_WAIT, Address, PolicyConfig


class TeacherConfig(PolicyConfig):
    """One teacher: weights (`model`, or `from` a stage), a `server`, or a store of targets.

    A store is a `from` that names a stage of kind teacher_cache, or a folder in `store`. Where weights stand beside a
    folder they say whose targets it must hold; they are not loaded.
    """

    refers_to: ClassVar[str] = "teacher"

    quantise: Literal["int8", "int4"] | None = Field(
        None, description="Hold the weights of its linear layers in so many bits (torchao, weights only); none: do not."
    )
    store: str | None = Field(
        None, description="Folder that `gemsmith teacher-cache` wrote; beside the recipe, else in the working folder."
    )
    server: Address | None = Field(
        None,
        description="Address of a server with vLLM's completions, such as http://127.0.0.1:8000/v1; `model` is then "
        "the name under which it serves (none: the first that it has). Mode topk only.",
    )
    timeout: float = Field(
        600, gt=0, le=LONGEST_WAIT, description="Seconds that a server may take over one call before it is given up."
    )

    @model_validator(mode="before")
    @classmethod
    def _any_policy(cls, value: Any) -> Any:
        """A policy is a teacher."""
        if isinstance(value, PolicyConfig) and not isinstance(value, TeacherConfig):
            return {name: getattr(value, name) for name in type(value).model_fields}
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> "TeacherConfig":
        """In place of a policy's own check: a server and a store stand for weights."""
        if self.liti is not None and self.from_ is None:
            raise ValueError("`liti` is a point between a warp stage's start and its last merge: name that in `from`")
        if self.server is not None:
            if beside := [n for n in ("from_", "store", "quantise", "rope") if getattr(self, n) is not None]:
                raise ValueError(f"a server has its own weights and settings: remove `{beside[0].rstrip('_')}`")
        elif self.model is not None and self.from_ is not None:
            raise ValueError("give either `model` (weights by name) or `from` (an earlier stage), and not both")
        elif self.model is None and self.from_ is None and self.store is None:
            raise ValueError("give `model` (weights by name), `from` (an earlier stage), `store` or `server`")
        return self

    @property
    def weights(self) -> PolicyConfig | None:
        """What to load, as a policy; None where there is nothing to load: a server's, or a store's alone."""
        if self.server is not None or (self.model is None and self.from_ is None):
            return None
        return PolicyConfig(**{name: getattr(self, name) for name in PolicyConfig.model_fields})

    def local_files(self, root: Path) -> list[Path]:
        """Return what is loaded, or the manifest of a store that is read in its place."""
        if self.loaded is not None:
            return super().local_files(root)
        store = find_local(root, self.store) if self.store is not None else None
        return [] if store is None or not (store / MANIFEST).exists() else [store / MANIFEST]

    @property
    def loaded(self) -> PolicyConfig | None:
        """What takes memory where the teacher is asked; None for a server or a store in a folder."""
        return None if self.store is not None else self.weights

    @property
    def name(self) -> str:
        """For messages and tables."""
        if self.server is not None:
            return f"{self.model or 'the model'} at {self.server}"
        return f"store {self.store}" if self.model is None and self.from_ is None else super().name


class ShareConfig(StrictModel):
    """One of several teachers: which prompts it answers for, and how much it counts beside others."""

    teacher: TeacherConfig = Field(description="The teacher.")
    tasks: list[str] = Field(
        default_factory=list, description="Tasks of the prompts that it answers for; none: those that no other names."
    )
    weight: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="Share among the teachers of one task, relative: their mean is learnt.",
    )


class SampledConfig(StrictModel):
    """How a teacher's sampled logits are drawn, for every stage that learns from them or writes them."""

    sampled_logits: int | None = Field(
        None,
        ge=1,
        description="K, vocabulary entries drawn a token. None: 256 (Gemma 3), or the vocabulary if smaller.",
    )
    mode: Literal["gumbel_renorm", "multinomial_counts", "topk"] = Field(
        "gumbel_renorm",
        description="How entries are drawn: without replacement and renormalised (the literal recipe), "
        "with replacement weighted by counts (unbiased), or the K likeliest.",
    )
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False, description="Softmax temperature of the teacher.")


class TaughtConfig(SampledConfig):
    """Whose targets a stage learns from, or writes."""

    needs_teacher: ClassVar[bool] = True

    teacher: TeacherConfig | None = Field(None, description="The teacher; it must have the student's tokenizer.")
    teachers: list[ShareConfig] = Field(
        default_factory=list,
        description="Several teachers in place of one: the prompt's `task` picks; those that one task has together are "
        "an ensemble, the mean of their probabilities.",
    )

    @property
    def shares(self) -> list[ShareConfig]:
        """All teachers; one alone answers for every task."""
        return [ShareConfig(teacher=self.teacher)] if self.teacher is not None else self.teachers

    def teacher_parameters(self, context: ForecastContext) -> int:
        """Return the number of weights of all teachers in memory; one whose targets were written before is not."""
        asked = [share.teacher.loaded for share in self.shares]
        held = [
            context.size_of(policy)
            for policy in asked
            if policy is not None and (policy.from_ is None or context.stages[policy.from_].produces != "targets")
        ]
        return sum(size.parameters for size in held if size is not None)

    @model_validator(mode="after")
    def _one_or_several(self) -> "TaughtConfig":
        if self.teacher is not None and self.teachers:
            raise ValueError("give either `teacher` or `teachers`, and not both")
        if not self.shares and self.needs_teacher:
            raise ValueError("found no teacher: give `teacher`, or several as `teachers`")
        return self

    @model_validator(mode="after")
    def _servers_give_the_likeliest(self) -> "TaughtConfig":
        served = [share.teacher for share in self.shares if share.teacher.server is not None]
        if served and self.mode != "topk":
            raise ValueError(
                f"a server gives the likeliest entries of a token and no draw: set mode to topk (found {self.mode})"
            )
        if served and self.temperature != 1.0:
            raise ValueError(
                "a server gives log-probabilities at temperature 1, and those at another need its whole distribution: "
                f"set temperature to 1 (found {self.temperature:g})"
            )
        return self
