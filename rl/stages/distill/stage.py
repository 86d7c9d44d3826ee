"""The distill stage: trains a student on a teacher's targets, on demonstrations or on-policy completions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.processes import rank
from gemsmith.contracts.stage import Stage
from gemsmith.curation.example import Example
from gemsmith.curation.load import load_data
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.open import open_sampler
from gemsmith.policy.text.chat import prompt_ids
from gemsmith.policy.training.engine import run_training, training_arguments
from gemsmith.policy.training.kept_checkpoints import KeepPolicies, write_index
from gemsmith.policy.training.lifecycle import save_trained, trainable
from gemsmith.rl.distillation.on_policy_completions import OnPolicyCompletions
from gemsmith.rl.distillation.trainer import DistillTrainer
from gemsmith.rl.rewards.compatibility import check_gates, check_routes
from gemsmith.rl.rewards.compose import Rewards, open_rewards
from gemsmith.rl.rollouts.prompt_room import with_room
from gemsmith.rl.stages.distill.config import DistillStage
from gemsmith.rl.stages.sft.stage import fitting_demonstrations, tell_untaught_end
from gemsmith.rl.teachers.opening import open_teacher
from gemsmith.rl.teachers.teacher import Teacher, TeacherRow

SHOWN = ("loss", "kl_from_teacher", "reward", "teacher_logprob", "agreement")


@dataclass(frozen=True)
class Lesson:
    """An example and its token ids; `completion` is empty if every step is on-policy."""

    example: Example
    prompt: list[int]
    completion: list[int]


def run(config: DistillStage, stage: Stage) -> None:
    """Distil `config.teacher` into `config.policy` and save the student to `stage.output`.

    The policies after `config.keep_steps` are saved beside it (`gemsmith.policy.training.kept_checkpoints`).

    Raises:
        UserError: the teacher, the data or the rewards do not support the settings; raised before training starts.
    """
    assert config.policy is not None
    if stage.output.exists():  # the run was killed after saving and before the stage was recorded as finished
        return
    student = load_policy(config.policy, stage.inputs, stage.root, seed=stage.seed, tokens=config.stated_length)
    examples = load_data(stage.data[config.data], name=config.data, seed=stage.seed, root=stage.root).train
    lessons = lessons_of(examples, student, config, stage)
    shown = [(lesson.prompt, lesson.completion) for lesson in lessons if lesson.completion]
    tell_untaught_end(student, config.lora, shown, stage)
    model = trainable(student, config.lora, stage.seed)
    folder = stage.checkpoints
    arguments = training_arguments(config, stage, folder, model=model, remove_unused_columns=False)
    live = Policy(model, student.tokenizer)
    with (
        _opened_teacher(config, stage, student, lessons) as teacher,
        open_rewards(config.rewards, stage) as rewards,
        _opened_completions(config, stage, live, lessons, rewards) as completions,
    ):
        check_teacher(config, teacher)
        trainer = DistillTrainer(
            model=model,
            args=arguments,
            train_dataset=rows_of(lessons),
            processing_class=student.tokenizer,
            teacher=teacher,
            divergence=config.divergence,
            jsd_beta=config.jsd_beta,
            average=config.average,
            on_policy_completions=completions,
            reward_weight=config.reward_weight if config.rewards else 0.0,
        )
        trainer.add_callback(KeepPolicies(stage, config.keep_steps, student.tokenizer))
        if rank() == 0:
            write_index(stage, config.keep_steps, config.steps)
        run_training(trainer, stage, folder, shown=SHOWN)
    save_trained(trainer, student, stage.output, folder)


def check_teacher(config: DistillStage, teacher: Teacher) -> None:
    """Check that the teacher supports the stage's divergence and on-policy steps.

    Raises:
        UserError: the teacher has no full distribution, or cannot score new completions.
    """
    if config.divergence != "forward" and not teacher.exact:
        raise UserError(
            f"divergence {config.divergence} needs the teacher's distribution over the whole vocabulary, but this "
            f"teacher provides only {teacher.k} entries per token: give the teacher by `model` or `from`, or set "
            "`divergence: forward`"
        )
    if config.on_policy and not teacher.on_policy:
        raise UserError(
            f"on_policy is {config.on_policy:g}, but this teacher has targets for the demonstrations only and cannot "
            "score the student's completions: give the teacher by `model`, `from` or `server`, or set on_policy to 0"
        )


def rows_of(lessons: Sequence[Lesson]) -> list[dict[str, Any]]:
    """Return the lessons as rows of the trainer's dataset."""
    return [
        {"prompt": lesson.prompt, "completion": lesson.completion, "number": number, "task": lesson.example.task}
        for number, lesson in enumerate(lessons)
    ]


def lessons_of(examples: Sequence[Example], student: Policy, config: DistillStage, stage: Stage) -> list[Lesson]:
    """Return the examples that fit `max_length`, with `sampling.max_tokens` to spare if there are on-policy steps.

    Raises:
        UserError: no example fits, or demonstrations are needed and the data has none.
    """
    if config.on_policy < 1:
        fitting = fitting_demonstrations(examples, student, config.max_length, config.data, stage)
        lessons = [Lesson(*demonstration) for demonstration in fitting]
    else:
        lessons = [Lesson(example, prompt_ids(student.tokenizer, example.messages), []) for example in examples]
    if not config.on_policy:
        return lessons
    return with_room(
        lessons,
        lambda lesson: len(lesson.prompt),
        data=config.data,
        max_length=config.max_length,
        max_tokens=config.sampling.max_tokens,
        say=stage.say,
    )


@contextmanager
def _opened_completions(
    config: DistillStage, stage: Stage, live: Policy, lessons: Sequence[Lesson], rewards: Rewards
) -> Iterator[OnPolicyCompletions | None]:
    """Yield the source of on-policy completions, with its sampler running; None if no step is on-policy."""
    if not config.on_policy:
        yield None
        return
    examples = [lesson.example for lesson in lessons]
    check_gates(rewards.terms, stage.id)
    if rewards.terms:
        check_routes(rewards.terms, examples, stage.id, config.data)
    if running := [name for name, term in rewards.terms.items() if term.normalise == "running"]:
        raise UserError(
            f"reward {running[0]} has `normalise: running`, but a distill stage keeps no running mean and variance: "
            "set normalise to batch, group or none"
        )
    with open_sampler(live, config.sampling, config.sampler, stage.say) as sampler:
        yield OnPolicyCompletions(
            live,
            sampler,
            examples,
            rewards,
            lambda_=config.on_policy,
            samples=config.completions_per_prompt,
            sampling=config.sampling,
            limits=config.sampler,
            seed=stage.seed,
            say=stage.say,
        )


@contextmanager
def _opened_teacher(
    config: DistillStage, stage: Stage, student: Policy, lessons: Sequence[Lesson]
) -> Iterator[Teacher]:
    """Yield the stage's teacher, checked against the lessons, and close it afterwards."""
    teacher = open_teacher(config, student, stage, asked_rows(lessons))
    try:
        yield teacher
    finally:
        teacher.close()


def asked_rows(lessons: Sequence[Lesson]) -> list[TeacherRow]:
    """Return the rows that the teacher will score, as far as they are known before training.

    For a lesson without a completion, the prompt's last token takes the place of the on-policy completion.
    """
    return [
        TeacherRow(lesson.prompt, lesson.completion, number, lesson.example.task)
        if lesson.completion
        else TeacherRow(lesson.prompt[:-1], lesson.prompt[-1:], -1, lesson.example.task)
        for number, lesson in enumerate(lessons)
    ]
