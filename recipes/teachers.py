"""What a student says of a teacher whose targets an earlier stage writes, held against that stage."""

from collections.abc import Iterator, Sequence

from contracts.stage import StageConfig
from recipes.faults import Faults, Keys
from rl.teachers.config import TaughtConfig, TeacherCacheStage, TeacherConfig

WITH_A_STORE = {"divergence": "forward", "on_policy": 0}


def check_teachers(stages: Sequence[StageConfig], faults: Faults) -> None:
    """A student that reads another stage's targets draws as that one does, and is not longer."""
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
