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

    A store is given by `from` with the id of a teacher_cache stage, or by `store` with a folder. If weights are given
    in addition to `store`, the folder must hold that teacher's targets; the weights are not loaded.
    """

    refers_to: ClassVar[str] = "teacher"

    quantise: Literal["int8", "int4"] | None = Field(
        None,
        description="Quantise the weights of the teacher's linear layers (torchao, weights only). Not set: no "
        "quantisation.",
    )
    store: str | None = Field(
        None,
        description="Folder written by `gemsmith teacher-cache`; searched beside the recipe, then in the "
        "working folder.",
    )
    server: Address | None = Field(
        None,
        description="Address of a server with vLLM's completions API, such as http://127.0.0.1:8000/v1. `model` is "
        "then the served model's name (not set: the first listed). Requires `mode: topk`.",
    )
    timeout: float = Field(
        600, gt=0, le=LONGEST_WAIT, description="Longest time in seconds for one call to the server."
    )

    @model_validator(mode="before")
    @classmethod
    def _any_policy(cls, value: Any) -> Any:
        """Accept a policy's configuration as a teacher's."""
        if isinstance(value, PolicyConfig) and not isinstance(value, TeacherConfig):
            return {name: getattr(value, name) for name in type(value).model_fields}
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> "TeacherConfig":
        """Check for exactly one source; replaces PolicyConfig's check, since a server or store needs no weights."""
        if self.liti is not None and self.from_ is None:
            raise ValueError(
                "`liti` is a point between a warp stage's start and its last merge: set `from` to the warp stage"
            )
        if self.server is not None:
            if beside := [n for n in ("from_", "store", "quantise", "rope") if getattr(self, n) is not None]:
                raise ValueError(
                    f"`server` cannot be combined with `{beside[0].rstrip('_')}`, as the server has its own: remove one"
                )
        elif self.model is not None and self.from_ is not None:
            raise ValueError("found both `model` (weights by name) and `from` (an earlier stage): remove one")
        elif self.model is None and self.from_ is None and self.store is None:
            raise ValueError(
                "found no source: set `model` (weights by name), `from` (an earlier stage), `store` or `server`"
            )
        return self

    @property
    def weights(self) -> PolicyConfig | None:
        """The teacher's weights as a policy's configuration; None for a server, or a store without weights."""
        if self.server is not None or (self.model is None and self.from_ is None):
            return None
        return PolicyConfig(**{name: getattr(self, name) for name in PolicyConfig.model_fields})

    def local_files(self, root: Path) -> list[Path]:
        """Return the local files of the loaded weights, or the manifest of the store."""
        if self.loaded is not None:
            return super().local_files(root)
        store = find_local(root, self.store) if self.store is not None else None
        return [] if store is None or not (store / MANIFEST).exists() else [store / MANIFEST]

    @property
    def loaded(self) -> PolicyConfig | None:
        """Weights that are loaded into this process; None for a server or a store in a folder."""
        return None if self.store is not None else self.weights

    @property
    def name(self) -> str:
        """Name of the teacher for messages and tables."""
        if self.server is not None:
            return f"{self.model or 'the model'} at {self.server}"
        return f"store {self.store}" if self.model is None and self.from_ is None else super().name


class ShareConfig(StrictModel):
    """One of several teachers, with the tasks that it covers and its weight in an ensemble."""

    teacher: TeacherConfig = Field(description="The teacher.")
    tasks: list[str] = Field(
        default_factory=list,
        description="Tasks of the prompts that this teacher covers. Empty: all tasks that no other teacher lists.",
    )
    weight: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="Relative weight in the mean of the probabilities of the teachers that share a task.",
    )


class SampledConfig(StrictModel):
    """Settings for sampling a teacher's logits, for stages that train on them or store them."""

    sampled_logits: int | None = Field(
        None,
        ge=1,
        description="K, vocabulary entries per token. Not set: 256 (Gemma 3), or the vocabulary size if smaller.",
    )
    mode: Literal["gumbel_renorm", "multinomial_counts", "topk"] = Field(
        "multinomial_counts",
        description="How entries are chosen. multinomial_counts: sampled with replacement, weighted by counts "
        "(unbiased). gumbel_renorm: sampled without replacement, probabilities renormalised (makes likely entries "
        "likelier and thins the tail). topk: the K most likely entries. With a store and no `mode`, the store's.",
    )
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False, description="Softmax temperature of the teacher.")

    @property
    def asks_for_mode(self) -> bool:
        """True if the recipe sets `mode`; a store is read with its own mode otherwise."""
        return "mode" in self.model_fields_set


class TaughtConfig(SampledConfig):
    """The teacher or teachers of a stage."""

    needs_teacher: ClassVar[bool] = True

    teacher: TeacherConfig | None = Field(None, description="The teacher. It must have the student's tokenizer.")
    teachers: list[ShareConfig] = Field(
        default_factory=list,
        description="Several teachers instead of `teacher`, selected by the prompt's `task`. Teachers that share a "
        "task form an ensemble: the mean of their probabilities.",
    )

    @property
    def shares(self) -> list[ShareConfig]:
        """All teachers; a single `teacher` covers every task."""
        return [ShareConfig(teacher=self.teacher)] if self.teacher is not None else self.teachers

    def teacher_parameters(self, context: ForecastContext) -> int:
        """Return the number of parameters of all teachers that are loaded; teachers read from a store count 0."""
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
            raise ValueError("found both `teacher` and `teachers`: remove one")
        if not self.shares and self.needs_teacher:
            raise ValueError("found no teacher: set `teacher`, or `teachers` for several")
        return self

    @model_validator(mode="after")
    def _servers_give_the_likeliest(self) -> "TaughtConfig":
        served = [share.teacher for share in self.shares if share.teacher.server is not None]
        if served and self.mode != "topk":
            raise ValueError(
                f"found mode {self.mode}, expected topk with a `server`, which returns only the most likely "
                "entries: set mode to topk"
            )
        if served and self.temperature != 1.0:
            raise ValueError(
                f"found temperature {self.temperature:g}, expected 1 with a `server`: its log-probabilities are at "
                "temperature 1, and rescaling them needs the whole distribution; set temperature to 1"
            )
        return self
