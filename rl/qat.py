"""Quantisation-aware training by distillation: the policy learns to be itself with quantised weights."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from contracts.errors import UserError
from contracts.stage import Stage
from curation.load import load_data
from policy.config import PolicyConfig
from policy.engine import remove_checkpoints, run_training, training_arguments
from policy.head import Targets
from policy.load import load_policy, save_policy
from policy.logprobs import weighted_logprobs
from policy.policy import Policy, evaluating
from policy.processes import wait_for_all
from policy.quantised import Scheme, check_widths, fake_quantised, quantise_in_place, write_mark
from policy.training import trainable, trained
from rl.distill import DistillTrainer, sampled_logits
from rl.qat_config import QatStage
from rl.sft import demonstration_tokens
from rl.teachers.in_process import InProcessTeacher
from rl.teachers.teacher import Row

MEASURED = "qat.json"


def run(config: QatStage, stage: Stage) -> None:
    """Train `config.policy` with its weights quantised in the forward pass; save it with its weights on the grid.

    Beside the weights stand `quantisation.json`, which an export reads, and `qat.json`: how far the policy is from the
    unquantised one on held-out demonstrations, when its weights are merely rounded (PTQ) and after the training (QAT).

    Raises:
        UserError: the format cannot hold the policy, or the teacher does not fit it.
    """
    assert config.policy is not None
    if stage.output.exists():  # saved whole just before a kill
        return
    scheme = scheme_of(config)
    policy = _in_float32(config.policy, config, stage)
    check_widths(policy.model, scheme, "take `format: int4_channel` or `sfp8`, and `embedding: f16`")
    unquantised = _in_float32(config.policy, config, stage)
    teacher = (
        unquantised
        if config.teacher is None
        else load_policy(config.teacher, stage.inputs, stage.root, seed=stage.seed)
    )
    k = sampled_logits(config.sampled_logits, policy, teacher)
    rows, held_out = _rows(config, policy, stage)
    model = trainable(policy, None, stage.seed)
    folder = stage.folder / "checkpoints"
    arguments = training_arguments(config, stage, folder, model=model, remove_unused_columns=False)
    _check_whole(arguments)
    unquantised.model.to(arguments.device)
    teacher.model.to(arguments.device)
    with fake_quantised(policy.model, scheme):
        rounded = closeness(policy, unquantised, held_out, config.micro_batch or config.batch)
        stage.say(f"rounded to {config.format}: KL {rounded['kl']:.4g} nats a token to the unquantised policy")
        trainer = DistillTrainer(
            model=model,
            args=arguments,
            train_dataset=[{**row, "number": number} for number, row in enumerate(rows)],
            processing_class=policy.tokenizer,
            teacher=InProcessTeacher(teacher.model, k, config.mode, config.temperature),
        )
        run_training(trainer, stage, folder, shown=("loss", "kl_from_teacher"))
        learnt = closeness(policy, unquantised, held_out, config.micro_batch or config.batch)
    stage.say(f"trained for {config.format}: KL {learnt['kl']:.4g} nats a token to the unquantised policy")
    plain = trained(trainer)
    if plain is not None:
        quantise_in_place(plain, scheme)
        measured = {"rows": len(held_out), "ptq": rounded, "qat": learnt}
        save_policy(Policy(plain, policy.tokenizer), stage.output, partial(_write_beside, scheme, measured))
        remove_checkpoints(folder)
    wait_for_all()


def _write_beside(scheme: Scheme, measured: dict[str, Any], folder: Path) -> None:
    write_mark(folder, scheme)
    (folder / MEASURED).write_text(json.dumps({**asdict(scheme), **measured}, indent=1) + "\n")


def scheme_of(config: QatStage) -> Scheme:
    """The formats that a stage asks for."""
    return Scheme(config.format, config.format if config.embedding == "format" else config.embedding)


def closeness(policy: Policy, unquantised: Policy, rows: Sequence[dict[str, Any]], batch: int) -> dict[str, float]:
    """How near a policy is to the unquantised one on the completion tokens of rows.

    Returns:
        `kl`: KL(unquantised || policy) over the whole vocabulary, in nats a token; `agreement`: the share of tokens at
        which both have the same likeliest entry; `tokens`: how many.
    """
    teacher = InProcessTeacher(unquantised.model, 1, "topk", 1.0)  # the one target is the likeliest entry
    kl, agreed, tokens = 0.0, 0.0, 0
    with torch.no_grad(), evaluating(policy.model):
        for start in range(0, len(rows), batch):
            part = [Row(row["prompt"], row["completion"]) for row in rows[start : start + batch]]
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


def _rows(config: QatStage, policy: Policy, stage: Stage) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Tokens of the training demonstrations, and of held-out ones; of training ones where none are held out."""
    data = load_data(stage.data[config.data], name=config.data, seed=stage.seed, root=stage.root)
    rows = demonstration_tokens(data.train, policy, config.max_length, config.data, stage)
    shown = [example for example in data.test if example.demonstration is not None]
    if not shown:
        stage.say(f"data.{config.data}: no demonstrations are held out, so that closeness is measured on training ones")
        return rows, rows[: config.held_out]
    return rows, demonstration_tokens(shown, policy, config.max_length, config.data, stage)[: config.held_out]


def _check_whole(arguments: Any) -> None:
    """Refuse ZeRO-3, whose weights are in parts, while rows are quantised whole.

    Raises:
        UserError: it is asked for.
    """
    deepspeed = arguments.deepspeed
    if isinstance(deepspeed, dict) and deepspeed["zero_optimization"]["stage"] == 3:
        raise UserError("qat quantises whole weights, and ZeRO-3 splits them: set engine.deepspeed.zero to 2 or less")
