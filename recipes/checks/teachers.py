"""What a student says of its teachers, held against the stage that writes their targets and the tasks of its rows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gemsmith.contracts.stage import StageConfig
from gemsmith.contracts.suggestions import did_you_mean
from gemsmith.recipes.checks.routes import stated_tasks
from gemsmith.recipes.schema.faults import Faults, Keys, listed
from gemsmith.rl.stages.teacher_cache.config import TeacherCacheStage
from gemsmith.rl.teachers.config import TaughtConfig, TeacherConfig

WITH_A_STORE = {"divergence": "forward", "on_policy": 0}


def check_teachers(stages: Sequence[StageConfig], data: Mapping[str, Any], faults: Faults) -> None:
    """A student that reads another stage's targets draws as that one does, and is not longer; each task has a teacher.

    Args:
        stages: as in the file.
        data: sections by name.
        faults: gets what is wrong.
    """
    for index, config in enumerate(stages):
        section = getattr(config, "data", None)
        if isinstance(config, TaughtConfig) and section in data and (tasks := stated_tasks(data[section])) is not None:
            _check_tasks(config, tasks, section, ("stages", index, "teachers"), faults)
    written = {stage.id: stage for stage in stages if isinstance(stage, TeacherCacheStage)}
    for index, student in enumerate(stages):
        for keys, teacher in _teachers(student, index):
            cache = written.get(teacher.from_ or "")
            if cache is None or not isinstance(student, TaughtConfig):
                continue
            if isinstance(student, TeacherCacheStage):
                faults.add(keys, f'found "{cache.id}", whose output is targets already, expected a teacher')
                continue
            for name, found, expected in _differences(student, cache):
                faults.add(("stages", index, name), f'found {found}, expected {expected} as in stage "{cache.id}"')
            for name, expected in WITH_A_STORE.items():
                if (given := getattr(student, name, expected)) != expected:
                    because = f'as stage "{cache.id}" has K entries a token of its own data'
                    faults.add(("stages", index, name), f"found {given}, expected {expected}, {because}")


def _check_tasks(config: TaughtConfig, tasks: set[str | None], section: str, keys: Keys, faults: Faults) -> None:
    """Every task of the rows has a teacher, and every task of a teacher a row."""
    present = sorted(task for task in tasks if task is not None)
    named = {task for share in config.teachers for task in share.tasks}
    for place, share in enumerate(config.teachers):
        for number, task in enumerate(share.tasks):
            if task not in tasks:
                expected = f"expected {listed(present)}{did_you_mean(task, present)}"
                found = f'found "{task}", which no row of data.{section} has, {expected}'
                faults.add((*keys, place, "tasks", number), found)
    if config.teachers and all(share.tasks for share in config.teachers) and (left := tasks - named):
        rows = " or ".join("no task" if task is None else f'the task "{task}"' for task in sorted(left, key=str))
        expected = "expected its name in the `tasks` of one, or one without `tasks`, which takes the rest"
        faults.add(keys, f"found no teacher for rows of data.{section} with {rows}, {expected}")


def _teachers(config: StageConfig, index: int) -> Iterator[tuple[Keys, TeacherConfig]]:
    if isinstance(config, TaughtConfig):
        if config.teacher is not None:
            yield ("stages", index, "teacher", "from"), config.teacher
        for place, share in enumerate(config.teachers):
            yield ("stages", index, "teachers", place, "teacher", "from"), share.teacher


def _differences(student: TaughtConfig, cache: TeacherCacheStage) -> Iterator[tuple[str, object, object]]:
    for name in ("mode", "temperature"):
        if getattr(student, name) != getattr(cache, name):
            yield name, getattr(student, name), getattr(cache, name)
    if student.sampled_logits is not None and student.sampled_logits != (cache.sampled_logits or 256):
        yield "sampled_logits", student.sampled_logits, cache.sampled_logits or 256
    length = getattr(student, "max_length", 0)
    if length > cache.max_length:
        yield "max_length", length, f"at most {cache.max_length},"
    if (data := getattr(student, "data", None)) != cache.data:
        yield "data", data, cache.data
