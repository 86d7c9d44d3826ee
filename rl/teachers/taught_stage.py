"""Base class of stages with teachers, and their checks before a run. Imports no torch."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from gemsmith.contracts.planning import CheckContext, Keys
from gemsmith.contracts.stage import StageConfig
from gemsmith.contracts.suggestions import did_you_mean, listed
from gemsmith.curation.sections import can_demonstrate, stated_tasks
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.origins import origin_of
from gemsmith.policy.sizes import Shape, shape_of
from gemsmith.rl.teachers.config import TaughtConfig, TeacherConfig
from gemsmith.rl.teachers.stated import check_stores, rows_text

GEMMA_ENTRIES = 262_144
"""Vocabulary size of the released text models; those with a vision tower have 64 more rows."""


class TaughtStage(StageConfig, TaughtConfig):
    """Base of stages whose teachers score the rows of one data section."""

    data: str = Field(description="Name of a data section.")
    max_length: int = Field(1024, ge=8, description="Largest length of prompt plus completion, in tokens.")

    @property
    def needs_demonstrations(self) -> bool:
        """True if teachers score demonstrations, so that the data must have them."""
        return True

    def conflicts_with_store(self) -> Iterator[tuple[str, object, object]]:
        """Yield settings that a store of targets does not support, as (field, found, expected)."""
        yield from ()

    def check(self, context: CheckContext) -> None:
        """Report data without demonstrations, tasks without a teacher, and stored targets with other settings."""
        section = context.data.get(self.data)
        if section is not None and self.needs_demonstrations and not can_demonstrate(section):
            expected = "expected a section that maps them with `demonstration` or creates them with `synthesise`"
            context.add(("data",), f'found "{self.data}", which has no demonstrations, {expected}')
        if section is not None and (tasks := stated_tasks(section)) is not None:
            self._check_tasks(context, tasks)
        for field, teacher in self._teacher_fields():
            source = context.stages.get(teacher.from_ or "")
            if isinstance(source, TaughtStage) and source.produces == "targets":
                self._check_targets(context, field, source)
        self._check_entries(context)

    def remarks(self, context: CheckContext) -> Sequence[str]:
        """Return a sentence about each teacher whose embedding has more rows than the student's and it use together."""
        teachers = [share.teacher for share in self.shares if share.teacher.loaded is not None]
        found = [(teacher.name, _shape(teacher, context)) for teacher in teachers]
        origin = origin_of(self, context.stages)
        student = shape_of(origin, context.root) if origin is not None else None
        if student is None:
            return ()
        used = min([student.vocabulary, *(shape.vocabulary for _, shape in found if shape is not None)])
        return [rows_text(name, shape.vocabulary, used) for name, shape in found if shape and shape.vocabulary > used]

    def check_files(self, root: Path) -> None:
        """Check that every folder in `store` exists, is complete, and has the stage's sampling settings.

        Raises:
            UserError: a store is missing, unfinished, or has other settings.
        """
        check_stores(self, root)

    def _teacher_fields(self) -> Iterator[tuple[Keys, TeacherConfig]]:
        if self.teacher is not None:
            yield ("teacher", "from"), self.teacher
        for place, share in enumerate(self.teachers):
            yield ("teachers", place, "teacher", "from"), share.teacher

    def _check_tasks(self, context: CheckContext, tasks: set[str | None]) -> None:
        """Report tasks of rows that no teacher covers, and tasks of teachers that no row has."""
        present = sorted(task for task in tasks if task is not None)
        named = {task for share in self.teachers for task in share.tasks}
        for place, share in enumerate(self.teachers):
            for number, task in enumerate(share.tasks):
                if task not in tasks:
                    expected = f"expected {listed(present)}{did_you_mean(task, present)}"
                    found = f'found "{task}", which no row of data.{self.data} has'
                    context.add(("teachers", place, "tasks", number), f"{found}, {expected}")
        if self.teachers and all(share.tasks for share in self.teachers) and (left := tasks - named):
            rows = " or ".join("no task" if task is None else f'the task "{task}"' for task in sorted(left, key=str))
            expected = (
                "expected the task in the `tasks` of a teacher, or a teacher without `tasks`, which covers the rest"
            )
            context.add(("teachers",), f"found no teacher for rows of data.{self.data} with {rows}, {expected}")

    def _check_targets(self, context: CheckContext, field: Keys, source: "TaughtStage") -> None:
        """Report settings that differ from those of the stage that writes the targets."""
        if self.produces == "targets":
            context.add(
                field,
                f'found "{source.id}", whose output is a store of targets, expected a stage that produces a policy',
            )
            return
        for name, found, expected in self._differences(source):
            context.add((name,), f'found {found}, expected {expected} as in stage "{source.id}"')
        for name, found, expected in self.conflicts_with_store():
            because = f'as stage "{source.id}" stores only K entries per token of its own data'
            context.add((name,), f"found {found}, expected {expected}, {because}")

    def _differences(self, source: "TaughtStage") -> Iterator[tuple[str, object, object]]:
        if self.asks_for_mode and self.mode != source.mode:
            yield "mode", self.mode, source.mode
        if self.temperature != source.temperature:
            yield "temperature", self.temperature, source.temperature
        if self.sampled_logits is not None and self.sampled_logits != (source.sampled_logits or 256):
            yield "sampled_logits", self.sampled_logits, source.sampled_logits or 256
        if self.max_length > source.max_length:
            yield "max_length", self.max_length, f"at most {source.max_length},"
        if self.data != source.data:
            yield "data", self.data, source.data

    def _check_entries(self, context: CheckContext) -> None:
        """Report a `sampled_logits` above the vocabulary size."""
        if self.sampled_logits is None:
            return
        origin = origin_of(self, context.stages)
        shape = shape_of(origin, context.root) if origin is not None else None
        entries = shape.vocabulary if shape is not None else GEMMA_ENTRIES
        if self.sampled_logits > entries:
            whose = origin.name if origin is not None and shape is not None else "Gemma 3"
            expected = f"expected at most {entries}, the vocabulary size of {whose}"
            context.add(("sampled_logits",), f"found {self.sampled_logits}, {expected}")


def _shape(teacher: PolicyConfig, context: CheckContext) -> Shape | None:
    """Return the shape of the weights that a teacher descends from; None if it is unknown, or the teacher a store."""
    if teacher.from_ is None:
        return shape_of(teacher, context.root)
    source = context.stages.get(teacher.from_)
    origin = origin_of(source, context.stages) if source is not None and source.produces == "policy" else None
    return shape_of(origin, context.root) if origin is not None else None
