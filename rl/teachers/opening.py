"""Opens the teachers that a recipe names, and refuses what cannot be learnt from before anything is."""

from collections.abc import Sequence
from pathlib import Path

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.curation.teacher_store.manifest import MANIFEST, tokenizer_hash
from gemsmith.curation.teacher_store.store import TeacherStore
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.policy import Policy
from gemsmith.rl.teachers.config import SampledConfig, ShareConfig, TaughtConfig, TeacherConfig
from gemsmith.rl.teachers.identity import teacher_identity
from gemsmith.rl.teachers.in_process import InProcessTeacher
from gemsmith.rl.teachers.quantised import quantise
from gemsmith.rl.teachers.server import ServerTeacher
from gemsmith.rl.teachers.several import Ensemble, TeachersByTask, same_draws
from gemsmith.rl.teachers.stated import check_stated, named_store
from gemsmith.rl.teachers.store import StoreTeacher
from gemsmith.rl.teachers.teacher import Teacher, TeacherRow

GEMMA_SAMPLED_LOGITS = 256  # Gemma 3 report, section 2.2


def open_teacher(config: TaughtConfig, student: Policy, stage: Stage, rows: Sequence[TeacherRow]) -> Teacher:
    """The teacher, or several as one, that answers for `rows`, and what was found out without asking it much.

    Args:
        config: of the stage.
        student: whose tokenizer it must have, and on whose device its targets are wanted.
        stage: for the outputs that `from` names, and the folder against which paths resolve.
        rows: what it will be asked about, as far as that is known.

    Raises:
        UserError: it cannot be opened; has another tokenizer; or is a store of something else, or without these rows.
    """
    opened = [(share, _open(share, config, student, stage)) for share in config.shares]
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
    """Which rows each teacher is asked about."""
    if not isinstance(teacher, TeachersByTask):
        return [(list(rows), teacher)]
    dealt: dict[int, tuple[list[TeacherRow], Teacher]] = {}
    for row in rows:
        dealt.setdefault(id(teacher.of(row)), ([], teacher.of(row)))[0].append(row)
    return list(dealt.values())


def _by_task(opened: Sequence[tuple[ShareConfig, Teacher]]) -> Teacher:
    """One that answers by task, each task's an ensemble where several name it."""
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
            f"{len(opened)} teachers answer for {of}, and the mean of their probabilities needs the whole distribution "
            f"of each, which {sparse[0]} does not have: write the ensemble's targets with a stage of kind "
            "teacher_cache, or leave one of them out."
        )
    return Ensemble([teacher for _, teacher in opened], [share.weight for share, _ in opened])


def _open(share: ShareConfig, config: SampledConfig, student: Policy, stage: Stage) -> Teacher:
    teacher, vocabulary = share.teacher, student.model.config.vocab_size
    if (folder := store_folder(teacher, stage)) is not None:
        return _open_store(folder, teacher, config, student, stage)
    k = entries_of(config.sampled_logits, vocabulary)
    if teacher.server is not None:
        return ServerTeacher(teacher.server, teacher.model, k, vocabulary, teacher.timeout, student.device, stage.say)
    assert teacher.weights is not None
    policy = load_policy(teacher.weights, stage.inputs, stage.root, seed=stage.seed)
    if different := other_entries(student.tokenizer.get_vocab(), policy.tokenizer.get_vocab()):
        raise UserError(
            f"the tokenizer of the teacher {teacher.name} is not the student's ({different}): logits can only be "
            "distilled over one vocabulary; take a teacher with the student's tokenizer, or its answers (`kind: "
            "generate`) in place of its logits"
        )
    if policy.model.config.vocab_size != vocabulary:
        raise UserError(
            f"the teacher {teacher.name} has {policy.model.config.vocab_size} rows in its vocabulary and the student "
            f"{vocabulary}: logits can only be distilled over one vocabulary"
        )
    if teacher.quantise is not None:
        quantise(policy.model, teacher.quantise)
    return InProcessTeacher(policy.model, k, config.mode, config.temperature)


def other_entries(student: dict[str, int], teacher: dict[str, int]) -> str | None:
    """The first entry of a vocabulary that another one has not, or under another id, in words; None: they are equal."""
    if student == teacher:
        return None
    text = min(text for text in {**student, **teacher} if student.get(text) != teacher.get(text))
    ids = ["no entry" if text not in entries else f"the id {entries[text]}" for entries in (teacher, student)]
    return f"{text!r} has {ids[0]} in it, and {ids[1]} in the student's"


def entries_of(asked: int | None, vocabulary: int) -> int:
    """K: what the recipe asks for, else Gemma's 256 or the whole vocabulary where that is smaller.

    Raises:
        UserError: K is above the vocabulary's size.
    """
    if asked is not None and asked > vocabulary:
        raise UserError(f"sampled_logits is {asked}, but the vocabulary has only {vocabulary} entries: lower it")
    return asked or min(GEMMA_SAMPLED_LOGITS, vocabulary)


def store_folder(teacher: TeacherConfig, stage: Stage) -> Path | None:
    """The store that a teacher is read from, where it is one.

    Raises:
        UserError: there is no such folder.
    """
    if teacher.store is not None:
        return named_store(teacher.store, stage.root)
    folder = stage.inputs.get(teacher.from_ or "")
    return folder if folder is not None and (folder / MANIFEST).exists() else None


def _open_store(
    folder: Path, teacher: TeacherConfig, config: SampledConfig, student: Policy, stage: Stage
) -> StoreTeacher:
    """A store that is what the recipe says of it."""
    again = "run `gemsmith teacher-cache` into it again"
    if teacher.store is None:
        again = f"run `gemsmith run RECIPE --only {teacher.from_} --fresh`"
    store = TeacherStore(folder, again)
    about, tokens = store.about, tokenizer_hash(student.tokenizer.get_vocab())
    check_stated(folder, about, config)
    if about.tokenizer != tokens or about.vocabulary != student.model.config.vocab_size:
        raise UserError(
            f"The store {folder} was written with another tokenizer than the student's: logits can only be distilled "
            "over one vocabulary; write one with the student's tokenizer, or start from a policy that has the store's"
        )
    if teacher.store is not None and teacher.weights is not None:
        asked_for = teacher_identity(teacher, stage)
        if about.teacher != asked_for:
            raise UserError(
                f"The store {folder} is of another teacher ({about.teacher_name}, {about.teacher[:12]}) than "
                f"{teacher.weights.name} ({asked_for[:12]}): name that one, or write the targets of this one."
            )
    return StoreTeacher(store, student.device)
