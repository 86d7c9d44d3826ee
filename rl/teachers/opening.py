"""Opening of the teachers of a recipe, with all checks that must fail before training starts."""

from collections.abc import Sequence
from pathlib import Path

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.curation.teacher_store.manifest import MANIFEST, read_manifest, tokenizer_hash
from gemsmith.curation.teacher_store.store import TeacherStore
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.text.vocabulary import lacks_entries, other_entries, rows_of, used_rows
from gemsmith.rl.distillation.sampled_logits import Mode
from gemsmith.rl.teachers.config import SampledConfig, ShareConfig, TaughtConfig, TeacherConfig
from gemsmith.rl.teachers.identity import teacher_identity
from gemsmith.rl.teachers.in_process import InProcessTeacher
from gemsmith.rl.teachers.quantised import quantise
from gemsmith.rl.teachers.server import ServerTeacher
from gemsmith.rl.teachers.several import Ensemble, TeachersByTask, same_draws
from gemsmith.rl.teachers.stated import check_stated, named_store, rows_text
from gemsmith.rl.teachers.store import StoreTeacher
from gemsmith.rl.teachers.teacher import Teacher, TeacherRow

GEMMA_SAMPLED_LOGITS = 256  # Gemma 3 report, section 2.2


def open_teacher(config: TaughtConfig, student: Policy, stage: Stage, rows: Sequence[TeacherRow]) -> Teacher:
    """Open the stage's teacher, or several as one, and check that it can score `rows`.

    Args:
        config: the stage's teachers and sampling settings.
        student: the student; the teacher must have its tokenizer, and targets are put on its device.
        stage: the stage, for the outputs that `from` names and the folder of relative paths.
        rows: rows that the teacher will score, as far as they are known.

    Raises:
        UserError: the teacher cannot be opened, has another tokenizer, or is a store with other settings or without
            some of these rows.
    """
    loaded = [_load(share.teacher, student, stage) for share in config.shares]
    used = _used_rows(student, [(share, policy) for share, policy in zip(config.shares, loaded, strict=True) if policy])
    for share, policy in zip(config.shares, loaded, strict=True):
        if policy is not None and rows_of(policy) != used:
            stage.say(rows_text(share.teacher.name, rows_of(policy), used))
    opened = [
        (share, _open(share, policy, config, student, stage, used))
        for share, policy in zip(config.shares, loaded, strict=True)
    ]
    teacher = opened[0][1] if len(opened) == 1 and not opened[0][0].tasks else _by_task(opened)
    if isinstance(teacher, TeachersByTask) and rows:
        teacher.check_tasks(rows, stage.say)
    for own, answering in _rows_by_teacher(teacher, rows):
        if isinstance(answering, StoreTeacher):
            answering.check(own)
        elif isinstance(answering, ServerTeacher):
            answering.check(own, student.tokenizer.decode)
    return teacher


def _rows_by_teacher(teacher: Teacher, rows: Sequence[TeacherRow]) -> list[tuple[list[TeacherRow], Teacher]]:
    """Return each teacher with the rows that it scores."""
    if not isinstance(teacher, TeachersByTask):
        return [(list(rows), teacher)]
    dealt: dict[int, tuple[list[TeacherRow], Teacher]] = {}
    for row in rows:
        dealt.setdefault(id(teacher.of(row)), ([], teacher.of(row)))[0].append(row)
    return list(dealt.values())


def _by_task(opened: Sequence[tuple[ShareConfig, Teacher]]) -> Teacher:
    """Return a teacher that selects by task; teachers that list the same task become an ensemble."""
    same_draws([teacher for _, teacher in opened])
    tasks = dict.fromkeys(task for share, _ in opened for task in share.tasks)
    by_task = {task: _mean([pair for pair in opened if task in pair[0].tasks], f'the task "{task}"') for task in tasks}
    rest = [pair for pair in opened if not pair[0].tasks]
    return TeachersByTask(by_task, _mean(rest, "all other tasks") if rest else None)


def _mean(opened: Sequence[tuple[ShareConfig, Teacher]], of: str) -> Teacher:
    if len(opened) == 1:
        return opened[0][1]
    if sparse := [share.teacher.name for share, teacher in opened if not teacher.exact]:
        raise UserError(
            f"{len(opened)} teachers share {of}, and the mean of their probabilities needs the whole distribution of "
            f"each, which {sparse[0]} does not provide: write the ensemble's targets with a teacher_cache stage, or "
            "keep only one of these teachers."
        )
    return Ensemble([teacher for _, teacher in opened], [share.weight for share, _ in opened])


def _open(
    share: ShareConfig, policy: Policy | None, config: TaughtConfig, student: Policy, stage: Stage, used: int
) -> Teacher:
    """Open a teacher whose `policy` is loaded, a store or a server; targets cover the first `used` rows."""
    teacher = share.teacher
    if (folder := store_folder(teacher, stage)) is not None:
        return _open_store(folder, teacher, config, student, stage, used)
    k = entries_of(config.sampled_logits, used)
    if teacher.server is not None:
        return ServerTeacher(teacher.server, teacher.model, k, used, teacher.timeout, student.device, stage.say)
    assert policy is not None
    if teacher.quantise is not None:
        quantise(policy.model, teacher.quantise)
    return InProcessTeacher(policy.model, k, _mode(config, stage), config.temperature, used)


def _mode(config: TaughtConfig, stage: Stage) -> Mode:
    """Return the stage's mode; if the recipe sets none, that of a store beside which other teachers sample."""
    folders = [] if config.asks_for_mode else [store_folder(share.teacher, stage) for share in config.shares]
    return next((read_manifest(folder).about.mode for folder in folders if folder is not None), config.mode)


def _load(teacher: TeacherConfig, student: Policy, stage: Stage) -> Policy | None:
    """Load a teacher that runs in this process and check its tokenizer; return None for a store or a server.

    Raises:
        UserError: the weights cannot be read, or the tokenizer is not the student's.
    """
    if store_folder(teacher, stage) is not None or teacher.weights is None:
        return None
    policy = load_policy(teacher.weights, stage.inputs, stage.root, seed=stage.seed)
    owners = ("the student", "the teacher")
    if different := other_entries(student.tokenizer.get_vocab(), policy.tokenizer.get_vocab(), owners):
        raise UserError(
            f"the teacher {teacher.name} has another tokenizer than the student ({different}), and logits can only be "
            "distilled with the same vocabulary: use a teacher with the student's tokenizer, or train on the "
            "teacher's answers (`kind: generate`) instead of its logits"
        )
    return policy


def _used_rows(student: Policy, teachers: Sequence[tuple[ShareConfig, Policy]]) -> int:
    """Return how many rows of the vocabulary the student and all loaded teachers use; rows beyond them are padding.

    Raises:
        UserError: a teacher or the student has no row for an entry of their tokenizer.
    """
    used = used_rows([student, *(policy for _, policy in teachers)])
    for share, policy in teachers:
        if rows_of(policy) != rows_of(student) and lacks_entries(student, used):
            raise UserError(
                f"the teacher {share.teacher.name} has a vocabulary of {rows_of(policy)} entries and the student one "
                f"of {rows_of(student)}: use a teacher with the student's vocabulary"
            )
    return used


def entries_of(asked: int | None, vocabulary: int) -> int:
    """Return K: the configured number, else 256 (Gemma 3) or the vocabulary size if that is smaller.

    Raises:
        UserError: K exceeds the vocabulary size.
    """
    if asked is not None and asked > vocabulary:
        raise UserError(f"found sampled_logits {asked}, expected at most the vocabulary size, {vocabulary}: lower it")
    return asked or min(GEMMA_SAMPLED_LOGITS, vocabulary)


def store_folder(teacher: TeacherConfig, stage: Stage) -> Path | None:
    """Return the folder of the teacher's store; None if the teacher is not a store.

    Raises:
        UserError: the folder does not exist.
    """
    if teacher.store is not None:
        return named_store(teacher.store, stage.root)
    folder = stage.inputs.get(teacher.from_ or "")
    return folder if folder is not None and (folder / MANIFEST).exists() else None


def _open_store(
    folder: Path, teacher: TeacherConfig, config: SampledConfig, student: Policy, stage: Stage, used: int
) -> StoreTeacher:
    """Open a store and check its settings, tokenizer and teacher against the recipe; entries beyond `used` are cut."""
    again = "run `gemsmith teacher-cache` into it again"
    if teacher.store is None:
        again = f"run `gemsmith run RECIPE --only {teacher.from_} --fresh`"
    store = TeacherStore(folder, again)
    about, tokens = store.about, tokenizer_hash(student.tokenizer.get_vocab())
    check_stated(folder, about, config)
    narrow = min(about.vocabulary, rows_of(student))
    if about.tokenizer != tokens or (about.vocabulary != rows_of(student) and lacks_entries(student, narrow)):
        raise UserError(
            f"The store {folder} was written with another tokenizer than the student's: write a store with the "
            "student's tokenizer, or use a student with the store's tokenizer."
        )
    if teacher.store is not None and teacher.weights is not None:
        asked_for = teacher_identity(teacher, stage)
        if about.teacher != asked_for:
            raise UserError(
                f"The store {folder} holds targets of the teacher {about.teacher_name} ({about.teacher[:12]}), but the "
                f"recipe expects {teacher.weights.name} ({asked_for[:12]}): change the recipe's teacher, or write a "
                "store with it."
            )
    return StoreTeacher(store, student.device, used)
