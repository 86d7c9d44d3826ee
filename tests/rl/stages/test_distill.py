from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import TrainingArguments

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.curation.example import Example
from gemsmith.policy.config import SamplerConfig, SamplingConfig, TrainingConfig
from gemsmith.policy.head.logprobs import right_padded
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.transformers_sampler import TransformersSampler
from gemsmith.policy.training.engine import run_training, training_arguments
from gemsmith.rl.distillation.on_policy_completions import OnPolicyCompletions
from gemsmith.rl.distillation.trainer import DistillTrainer
from gemsmith.rl.rewards.compose import Rewards
from gemsmith.rl.stages.distill.config import DistillStage
from gemsmith.rl.stages.distill.stage import lessons_of
from gemsmith.rl.teachers.in_process import InProcessTeacher
from gemsmith.rl.teachers.teacher import TeacherRow
from tests.messages import raises_facts

FIELDS: dict[str, Any] = {"id": "s", "kind": "distill", "data": "d", "steps": 1, "batch": 2, "learning_rate": 1e-3}
FIELDS |= {"teacher": {"model": "tiny"}}
ROWS = [
    {"prompt": [2, 30, 31], "completion": [40, 41, 42, 43, 1], "number": 0},
    {"prompt": [2, 32], "completion": [44, 1], "number": 1},
]


class Length:
    """A reward equal to the number of characters."""

    def score(self, prompts: list[str], completions: list[str], columns: Any) -> list[float | None]:
        return [float(len(text)) for text in completions]

    def close(self) -> None:
        pass


def words_of(policy: Policy, share: float, samples: int = 3, max_tokens: int = 4) -> OnPolicyCompletions:
    sampling = SamplingConfig(max_tokens=max_tokens)
    return OnPolicyCompletions(
        policy,
        TransformersSampler(policy, sampling),
        [Example("a"), Example("b")],
        Rewards({"length": Length()}, {"length": 1.0}),
        lambda_=share,
        samples=samples,
        sampling=sampling,
        limits=SamplerConfig(),
        seed=3,
        say=print,
    )


def trainer_of(student: Policy, teacher: Policy, folder: Path, **fields: Any) -> DistillTrainer:
    return DistillTrainer(
        model=student.model,
        args=TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", remove_unused_columns=False),
        train_dataset=ROWS,
        processing_class=student.tokenizer,
        teacher=InProcessTeacher(teacher.model, 512, "topk"),  # K is the whole vocabulary: the exact cross-entropy
        **fields,
    )


def plain_logprobs(policy: Policy, rows: list[dict[str, Any]]) -> list[torch.Tensor]:
    """Return log-probabilities, [T, V], for each row, from the model's own logits."""
    prompts, completions = [row["prompt"] for row in rows], [row["completion"] for row in rows]
    ids_SL, attended_SL, predicts_SL, _ = right_padded(prompts, completions, torch.device("cpu"))
    logits = policy.model(input_ids=ids_SL, attention_mask=attended_SL).logits.log_softmax(-1)
    return list(logits[predicts_SL].split([len(each) for each in completions]))


@pytest.mark.parametrize("average", ["tokens", "sequences"])
def test_the_loss_is_the_mean_over_tokens_or_over_sequences_of_their_means(average: Any, tmp_path: Path) -> None:
    student, teacher = tiny_policy(seed=0), tiny_policy(seed=1)
    trainer = trainer_of(student, teacher, tmp_path, average=average)
    items = trainer._get_num_items_in_batch([ROWS], torch.device("cpu"))
    loss = trainer.compute_loss(student.model, ROWS, num_items_in_batch=items)
    with torch.no_grad():
        pairs = zip(plain_logprobs(student, ROWS), plain_logprobs(teacher, ROWS), strict=True)
        first, second = (-(theirs.exp() * ours).sum(-1) for ours, theirs in pairs)
    expected = torch.cat([first, second]).mean() if average == "tokens" else (first.mean() + second.mean()) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("average", ["tokens", "sequences"])
def test_with_a_reward_the_loss_is_alpha_times_the_divergence_less_reinforce(average: Any, tmp_path: Path) -> None:
    student, teacher = tiny_policy(seed=0), tiny_policy(seed=1)
    words = words_of(student, 1.0)
    fields = {"divergence": "reverse", "average": average, "on_policy_completions": words, "reward_weight": 0.3}
    trainer = trainer_of(student, teacher, tmp_path, **fields)
    lengths = [len(row["completion"]) for row in ROWS]
    own = [{**row, "number": -1, "place": i, "mean_length": 3.5} for i, row in enumerate(ROWS)]
    own[0]["advantage"], own[1]["advantage"] = 2.0, -1.0
    items = trainer._get_num_items_in_batch([own], torch.device("cpu"))
    loss = trainer.compute_loss(student.model, own, num_items_in_batch=items)

    ours, theirs = plain_logprobs(student, ROWS), plain_logprobs(teacher, ROWS)
    divergence = [(q.exp() * (q - p.detach())).sum(-1) for q, p in zip(ours, theirs, strict=True)]
    mean = torch.cat(divergence).mean() if average == "tokens" else sum(each.mean() for each in divergence) / 2
    logprob = [each[range(n), row["completion"]].sum() for each, n, row in zip(ours, lengths, ROWS, strict=True)]
    expected = 0.7 * mean - 0.3 * (2.0 * logprob[0] - 1.0 * logprob[1]) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    weight = student.model.model.layers[0].mlp.up_proj.weight
    got, wanted = (torch.autograd.grad(each, weight)[0] for each in (loss, expected))
    assert torch.allclose(got, wanted, atol=1e-4 * wanted.abs().max().item())


def test_the_share_of_steps_on_the_students_words_is_lambda_and_the_seed_picks_them() -> None:
    policy = tiny_policy()
    picked = {share: [words_of(policy, share).is_due(step) for step in range(2000)] for share in (0.0, 0.3, 1.0)}
    assert not any(picked[0.0]) and all(picked[1.0])
    assert sum(picked[0.3]) / 2000 == pytest.approx(0.3, abs=0.04)
    assert picked[0.3] == [words_of(policy, 0.3).is_due(step) for step in range(2000)]


def test_the_students_words_replace_each_row_by_samples_whose_advantages_sum_to_zero() -> None:
    words = words_of(tiny_policy(), 1.0)
    batches, metrics = words.replace_completions([ROWS[:1], ROWS[1:]], step=5)
    assert [[row["prompt"] for row in batch] for batch in batches] == [[row["prompt"]] * 3 for row in ROWS]
    assert [row["place"] for batch in batches for row in batch] == list(range(6))
    assert all(row["number"] == -1 and 1 <= len(row["completion"]) <= 4 for batch in batches for row in batch)
    assert all(sum(row["advantage"] for row in batch) == pytest.approx(0, abs=1e-5) for batch in batches)
    lengths = [len(row["completion"]) for batch in batches for row in batch]
    assert metrics["length"] == sum(lengths) / 6
    again, _ = words.replace_completions([ROWS], step=5)  # in one micro-batch
    assert [row["completion"] for row in again[0]] == [row["completion"] for batch in batches for row in batch]
    assert words.replace_completions([ROWS], step=6)[0] != again


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"samples": 2}, ["samples", "on_policy is 0"]),
        ({"rewards": ["r"]}, ["rewards", "on_policy is 0"]),
        ({"on_policy": 1, "rewards": ["r"], "samples": 1}, ["rewards", "samples is 1", "2"]),
        ({"on_policy": 1, "reward_weight": 0.2}, ["reward_weight", "`rewards`"]),
        ({"jsd_beta": 0.9}, ["jsd_beta", "`divergence: jsd`", "divergence is forward"]),
        ({"divergence": "reverse", "mode": "topk"}, ["divergence reverse", "remove mode"]),
        ({"on_policy": 1, "sampler": {"backend": "server"}}, ["sampler", "server"]),
        ({"on_policy": 1.5}, ["on_policy", "less than or equal to 1"]),
    ],
)
def test_fields_that_do_not_fit_each_other_are_refused(fields: dict[str, Any], facts: list[str]) -> None:
    with raises_facts(ValidationError, *facts):
        DistillStage.model_validate(FIELDS | fields)


@pytest.mark.parametrize("mode", ["multinomial_counts", "gumbel_renorm"])
def test_a_default_mode_of_any_version_may_stand_beside_a_divergence_that_samples_nothing(mode: str) -> None:
    assert DistillStage.model_validate(FIELDS | {"divergence": "reverse", "mode": mode}).mode == mode


def test_prompts_without_demonstrations_will_do_where_every_step_is_on_the_students_words(tmp_path: Path) -> None:
    policy, stage = tiny_policy(), Stage("s", tmp_path, 0, root=tmp_path)
    examples = [Example("one"), Example("two " * 50)]
    own = DistillStage.model_validate({**FIELDS, "on_policy": 1, "sampling": {"max_tokens": 8}, "max_length": 32})
    assert [lesson.example.prompt for lesson in lessons_of(examples, policy, own, stage)] == ["one"]
    with raises_facts(UserError, "data.d", "max_length", "sampling.max_tokens", "32 - 8 = 24"):
        lessons_of(examples[1:], policy, own, stage)
    with raises_facts(UserError, "data.d", "`demonstration`", "`synthesise`"):
        lessons_of(examples, policy, own.model_copy(update={"on_policy": 0.5}), stage)


@pytest.mark.parametrize("log_every", [1, 50])
def test_a_training_whose_loss_is_no_number_ends_before_anything_is_saved(log_every: int, tmp_path: Path) -> None:
    student, teacher = tiny_policy(seed=0), tiny_policy(seed=1)
    with torch.no_grad():
        student.model.model.norm.weight[0] = float("nan")
    stage = Stage("s", tmp_path / "stage", 0, root=tmp_path)
    config = TrainingConfig(steps=2, batch=2, learning_rate=1e-3, log_every=log_every)
    trainer = DistillTrainer(
        model=student.model,
        args=training_arguments(config, stage, tmp_path / "checkpoints", remove_unused_columns=False),
        train_dataset=ROWS,
        processing_class=student.tokenizer,
        teacher=InProcessTeacher(teacher.model, 512, "topk"),
    )
    what = "loss is nan at step 1" if log_every == 1 else "train_loss is nan at step 2"
    with raises_facts(UserError, what, "learning_rate", 0.001):
        run_training(trainer, stage, tmp_path / "checkpoints")
    assert (log_every == 1) == (stage.folder / "metrics.jsonl").exists()  # the row that shows the NaN is kept


def test_a_teacher_whose_numbers_overflow_is_told_before_anything_is_drawn_from_them():
    teacher = tiny_policy().model
    with torch.no_grad():
        teacher.model.norm.weight.fill_(3e38)
    with raises_facts(UserError, "teacher", "finite", "dtype"):
        InProcessTeacher(teacher, 8, "multinomial_counts").targets([TeacherRow([2, 105], [370, 106])], [0, 1])
