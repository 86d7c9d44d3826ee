"""The teacher_cache stage: writes a teacher's targets to a store, once for any number of students."""

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.curation.load import load_data
from gemsmith.curation.teacher_store.manifest import MOST, About, tokenizer_hash
from gemsmith.curation.teacher_store.shard import Array, highs_of
from gemsmith.curation.teacher_store.writing import Ask, data_hash, make_folder, write_store
from gemsmith.policy.head.tiled_matmul import chunk_rows
from gemsmith.policy.loading.load import load_policy
from gemsmith.rl.distillation.sampled_logits import draw_targets
from gemsmith.rl.stages.sft.stage import fitting_demonstrations
from gemsmith.rl.stages.teacher_cache.config import TeacherCacheStage
from gemsmith.rl.teachers.identity import teachers_identity, teachers_name
from gemsmith.rl.teachers.opening import open_teacher
from gemsmith.rl.teachers.sparse import SparseTargets
from gemsmith.rl.teachers.teacher import Teacher, TeacherRow


def run(config: TeacherCacheStage, stage: Stage) -> None:
    """Write the targets of `config.data` to `stage.output`."""
    if stage.output.exists():  # the run was killed after saving and before the stage was recorded as finished
        return
    unfinished = stage.folder / "unfinished"
    write_targets(config, stage, unfinished)
    unfinished.rename(stage.output)


def write_targets(config: TeacherCacheStage, stage: Stage, folder: Path) -> None:
    """Write the targets of `config.data` to `folder`; an unfinished store there is completed.

    Raises:
        UserError: see `open_teacher` and `write_store`; also if K exceeds the limit of the store's format.
        RunError: writing to the disk failed.
    """
    assert config.policy is not None
    make_folder(folder)
    student = load_policy(config.policy, stage.inputs, stage.root, seed=stage.seed)
    data = load_data(stage.data[config.data], name=config.data, seed=stage.seed, root=stage.root)
    shown = fitting_demonstrations(data.train, student, config.max_length, config.data, stage)
    rows = [
        TeacherRow(prompt, completion, number, example.task)
        for number, (example, prompt, completion) in enumerate(shown)
    ]
    teacher = open_teacher(config, student, stage, rows)
    if teacher.k > MOST:
        raise UserError(
            f"found sampled_logits {teacher.k}, expected at most {MOST} entries per token for a store: lower it"
        )
    tokens = [(row.prompt, row.completion) for row in rows]
    about = About(
        teacher=teachers_identity(config.shares, stage),
        teacher_name=teachers_name(config.shares),
        tokenizer=tokenizer_hash(student.tokenizer.get_vocab()),
        vocabulary=student.model.config.vocab_size,
        k=teacher.k,
        mode=teacher.mode,
        temperature=config.temperature,
        seed=stage.seed,
        max_length=config.max_length,
        data=data_hash(tokens),
        rows=len(rows),
    )
    del student
    _tell_size(about, sum(len(row.completion) for row in rows), folder, stage)
    try:
        ask = asking(teacher, rows, stage.seed, about.vocabulary)
        write_store(folder, about, tokens, ask, config.batch, _progress(stage))
    finally:
        teacher.close()


def asking(teacher: Teacher, rows: Sequence[TeacherRow], seed: int, vocabulary: int) -> Ask:
    """Return the callback of `write_store`: row numbers -> ids and log-probabilities of their M tokens, [M, K] each."""

    def ask(numbers: range) -> tuple[Array, Array]:
        asked = [rows[number] for number in numbers]
        with torch.no_grad():
            ids_MK, logprobs_MK = drawn(teacher, asked, [own for row in asked for own in _seeds(row, seed)], vocabulary)
        return ids_MK.cpu().numpy(), logprobs_MK.float().cpu().numpy()

    return ask


def drawn(
    teacher: Teacher, rows: Sequence[TeacherRow], seeds: Sequence[int], vocabulary: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sampled ids (repeats allowed) and the teacher's log-probabilities for the rows' M tokens, [M, K] each."""
    targets = teacher.targets(rows, seeds)
    if isinstance(targets, SparseTargets):
        return targets.ids_MK, targets.logprobs_MK
    size, step = sum(len(row.completion) for row in rows), chunk_rows(vocabulary)
    parts = []
    for start in range(0, size, step):
        chunk = slice(start, min(start + step, size))
        logprobs_CV = targets.logprobs(chunk)
        ids_CK, _ = draw_targets(logprobs_CV, teacher.k, teacher.mode, seeds[chunk])
        parts.append((ids_CK, logprobs_CV.gather(-1, ids_CK)))
    ids, logprobs = zip(*parts, strict=True)
    return torch.cat(ids), torch.cat(logprobs)


def _seeds(row: TeacherRow, seed: int) -> list[int]:
    """Return one sampling seed per completion token of a row."""
    source = random.Random(f"{seed}, row {row.number}")
    return [source.getrandbits(63) for _ in row.completion]


def _tell_size(about: About, tokens: int, folder: Path, stage: Stage) -> None:
    """Report the store's size, and warn if the disk has too little free space."""
    each = 2 * highs_of(about.vocabulary) + about.k * (6 if about.counted else 4)
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    most = "at most " if about.counted else ""
    stage.say(f"{tokens} tokens of {about.rows} rows take {most}{tokens * each / 1e6:.1f} MB, {each} bytes per token")
    if tokens * each > free and not about.counted:
        stage.say(
            f"the disk has only {free / 1e6:.1f} MB free: if it fills up, free some space and run again to continue"
        )


def _progress(stage: Stage) -> Callable[[int, int], None]:
    return lambda done, total: stage.progress(done, total, "token")
