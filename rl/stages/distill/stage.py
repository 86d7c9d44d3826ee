"""Distillation from a teacher: on demonstrations, or on the student's own completions."""

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
    """An example and its tokens; the completion is empty where only the student's own completions are learnt from."""

    example: Example
    prompt: list[int]
    completion: list[int]


def run(config: DistillStage, stage: Stage) -> None:
    """Distil `config.teacher` into `config.policy` and save the student to `stage.output`.

    The policies of `config.keep_steps` are kept beside it (`gemsmith.policy.training.kept_checkpoints`).

    Raises:
        UserError: what the recipe asks for does not fit the teacher, the data or the rewards; before anything trains.
    """
    assert config.policy is not None
    if stage.output.exists():  # saved whole just before a kill
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
    """That a teacher can be asked what the stage will ask.

    Raises:
        UserError: it cannot.
    """
    if config.divergence != "forward" and not teacher.exact:
        raise UserError(
            f"divergence {config.divergence} needs the teacher's distribution over the whole vocabulary, and this "
            f"teacher gives {teacher.k} entries a token: take a teacher in this process (`model` or `from`), or "
            "`divergence: forward`"
        )
    if config.on_policy and not teacher.on_policy:
        raise UserError(
            f"on_policy is {config.on_policy:g}, and this teacher knows the demonstrations alone, not what the "
            "student will write: take a teacher in this process (`model` or `from`) or a server, or set on_policy to 0"
        )


def rows_of(lessons: Sequence[Lesson]) -> list[dict[str, Any]]:
    """As the trainer takes them."""
    return [
        {"prompt": each.prompt, "completion": each.completion, "number": number, "task": each.example.task}
        for number, each in enumerate(lessons)
    ]


def lessons_of(examples: Sequence[Example], student: Policy, config: DistillStage, stage: Stage) -> list[Lesson]:
    """The examples that fit `max_length`, whose prompts leave room for the student's completions where it writes any.

    Raises:
        UserError: none is left, or demonstrations are needed and there are none.
    """
    if config.on_policy < 1:
        fitting = fitting_demonstrations(examples, student, config.max_length, config.data, stage)
        lessons = [Lesson(*each) for each in fitting]
    else:
        lessons = [Lesson(each, prompt_ids(student.tokenizer, each.messages), []) for each in examples]
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
    """The student's own completions, with their sampler started; None where no step is on them."""
    if not config.on_policy:
        yield None
        return
    examples = [lesson.example for lesson in lessons]
    check_gates(rewards.terms, stage.id)
    if rewards.terms:
        check_routes(rewards.terms, examples, stage.id, config.data)
    if running := [name for name, term in rewards.terms.items() if term.normalise == "running"]:
        raise UserError(
            f"reward {running[0]} has `normalise: running`, whose moments a distillation does not keep: take batch, "
            "group or none"
        )
    if rewards.terms and not config.sampling.plain:
        stage.say(
            "completions are drawn with another temperature than 1, or with top_p or top_k, and no importance weights: "
            "the gradient of the rewards is biased"
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
    """The stage's teacher, once it is known to answer for the lessons."""
    teacher = open_teacher(config, student, stage, asked_rows(lessons))
    try:
        yield teacher
    finally:
        teacher.close()


def asked_rows(lessons: Sequence[Lesson]) -> list[TeacherRow]:
    """What the teacher will be asked about, as far as it is known: a prompt alone stands for what the student adds."""
    return [
        TeacherRow(each.prompt, each.completion, number, each.example.task)
        if each.completion
        else TeacherRow(each.prompt[:-1], each.prompt[-1:], -1, each.example.task)
        for number, each in enumerate(lessons)
    ]
