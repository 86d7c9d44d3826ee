"""The qat stage: distil the unquantised policy into the same policy with quantised weights."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.curation.example import Example
from gemsmith.curation.load import load_data
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.head.logprobs import weighted_logprobs
from gemsmith.policy.head.vocabulary_head import Targets
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.policy.policy import Policy, evaluating
from gemsmith.policy.quantised import (
    Scheme,
    check_sizes,
    check_widths,
    fake_quantised,
    quantise_in_place,
    spread_ties,
    write_mark,
)
from gemsmith.policy.training.engine import remove_checkpoints, run_training, training_arguments
from gemsmith.policy.training.lifecycle import trainable, trained
from gemsmith.policy.training.processes import wait_for_all
from gemsmith.rl.distillation.trainer import DistillTrainer
from gemsmith.rl.stages.distill.stage import SHOWN, Lesson, asked_rows, rows_of
from gemsmith.rl.stages.qat.config import QatStage
from gemsmith.rl.stages.sft.stage import fitting_demonstrations
from gemsmith.rl.teachers.in_process import InProcessTeacher
from gemsmith.rl.teachers.opening import entries_of, open_teacher
from gemsmith.rl.teachers.teacher import Teacher, TeacherRow

MEASURED = "qat.json"


def run(config: QatStage, stage: Stage) -> None:
    """Train `config.policy` with quantised weights in the forward pass; save it with weights on the format's grid.

    Also writes `quantisation.json`, which an export reads, and `qat.json`: the KL to the unquantised policy on held-out
    demonstrations before training (weights only rounded, PTQ) and after it (QAT).

    Raises:
        UserError: the format does not support the policy's sizes, or the teacher does not fit the policy.
    """
    assert config.policy is not None
    if stage.output.exists():  # the run was killed after saving and before the stage was recorded as finished
        return
    scheme = scheme_of(config)
    policy = _in_float32(config.policy, config, stage)
    check_widths(policy.model, scheme, "set `format: int4_channel` or `sfp8`, and `embedding: f16`")
    check_sizes(policy.model, scheme)
    spread_ties(policy.model, scheme, stage.seed)
    unquantised = _in_float32(config.policy, config, stage)
    lessons, held_out = _lessons(config, policy, stage)
    model = trainable(policy, None, stage.seed)
    folder = stage.checkpoints
    arguments = training_arguments(config, stage, folder, model=model, remove_unused_columns=False)
    _check_whole(arguments)
    unquantised.model.to(arguments.device)
    teacher = _teacher(config, policy, unquantised, lessons, stage)
    together = config.micro_batch or config.batch
    with fake_quantised(policy.model, scheme), closing(teacher):
        rounded = closeness(policy, unquantised, held_out, together)
        stage.say(f"rounded to {config.format}: KL {rounded['kl']:.4g} nats per token to the unquantised policy")
        trainer = DistillTrainer(
            model=model,
            args=arguments,
            train_dataset=rows_of(lessons),
            processing_class=policy.tokenizer,
            teacher=teacher,
            average=config.average,
        )
        run_training(trainer, stage, folder, shown=SHOWN)
        learnt = closeness(policy, unquantised, held_out, together)
    stage.say(f"trained for {config.format}: KL {learnt['kl']:.4g} nats per token to the unquantised policy")
    plain = trained(trainer)
    if plain is not None:
        quantise_in_place(plain.to(torch.float32), scheme)  # the engine may have cast the weights to another dtype
        measured = {"rows": len(held_out), "ptq": rounded, "qat": learnt}
        save_policy(Policy(plain, policy.tokenizer), stage.output, partial(_write_measurements, scheme, measured))
        remove_checkpoints(folder)
    wait_for_all()


def _write_measurements(scheme: Scheme, measured: dict[str, Any], folder: Path) -> None:
    write_mark(folder, scheme)
    (folder / MEASURED).write_text(json.dumps({**asdict(scheme), **measured}, indent=1) + "\n")


def scheme_of(config: QatStage) -> Scheme:
    """Return the quantisation formats of a stage."""
    return Scheme(config.format, config.format if config.embedding == "format" else config.embedding)


def closeness(policy: Policy, unquantised: Policy, lessons: Sequence[Lesson], batch: int) -> dict[str, float]:
    """Compare a policy with the unquantised one on the completion tokens of lessons.

    Returns:
        `kl`: mean KL(unquantised || policy) over the whole vocabulary, in nats per token; `agreement`: share of tokens
        at which both have the same most likely entry; `tokens`: number of tokens.
    """
    teacher = InProcessTeacher(unquantised.model, 1, "topk", 1.0)  # K = 1: the target is the most likely entry
    kl, agreed, tokens = 0.0, 0.0, 0
    with torch.no_grad(), evaluating(policy.model):
        for start in range(0, len(lessons), batch):
            part = [TeacherRow(lesson.prompt, lesson.completion) for lesson in lessons[start : start + batch]]
            prompts, completions = [row.prompt for row in part], [row.completion for row in part]
            asked = teacher.targets(part, [0] * sum(len(completion) for completion in completions))
            _, scores = weighted_logprobs(
                policy.model, prompts, completions, torch.ones(len(part)), Targets(asked.choose)
            )
            divergence_M = asked.divergence(scores)
            kl += float(divergence_M.double().sum())
            agreed += float(scores.best.sum())
            tokens += len(divergence_M)
    return {"kl": kl / tokens, "agreement": agreed / tokens, "tokens": tokens}


def _in_float32(wanted: PolicyConfig, config: QatStage, stage: Stage) -> Policy:
    wanted = wanted.model_copy(update={"dtype": "float32"})
    return load_policy(wanted, stage.inputs, stage.root, seed=stage.seed, tokens=config.stated_length)


def _teacher(config: QatStage, policy: Policy, unquantised: Policy, lessons: Sequence[Lesson], stage: Stage) -> Teacher:
    """Return the teacher that the stage configures, else the unquantised policy."""
    if config.shares:
        return open_teacher(config, policy, stage, asked_rows(lessons))
    k = entries_of(config.sampled_logits, policy.model.config.vocab_size)
    return InProcessTeacher(unquantised.model, k, config.mode, config.temperature)


def _lessons(config: QatStage, policy: Policy, stage: Stage) -> tuple[list[Lesson], list[Lesson]]:
    """Return training and held-out demonstrations; training ones serve as held-out ones if the data has none."""
    data = load_data(stage.data[config.data], name=config.data, seed=stage.seed, root=stage.root)

    def fitting(examples: Sequence[Example]) -> list[Lesson]:
        demonstrations = fitting_demonstrations(examples, policy, config.max_length, config.data, stage)
        return [Lesson(*demonstration) for demonstration in demonstrations]

    lessons = fitting(data.train)
    if any(example.demonstration is not None for example in data.test):
        return lessons, fitting(data.test)[: config.held_out]
    stage.say(f"data.{config.data} holds out no demonstrations: the KL is measured on training demonstrations")
    return lessons, lessons[: config.held_out]


def _check_whole(arguments: Any) -> None:
    """Reject ZeRO-3, which shards weights, because rows must be quantised whole.

    Raises:
        UserError: DeepSpeed is configured with ZeRO stage 3.
    """
    deepspeed = arguments.deepspeed
    if isinstance(deepspeed, dict) and deepspeed["zero_optimization"]["stage"] == 3:
        raise UserError("qat does not support ZeRO-3, which shards the weights: set engine.deepspeed.zero to 2 or less")
