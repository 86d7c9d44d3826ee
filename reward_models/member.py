"""Training of one member of WARM: full or LoRA fine-tuning on the Bradley-Terry loss with TRL's RewardTrainer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig as PeftLoraConfig
from transformers import Gemma3TextForSequenceClassification
from trl import RewardConfig, RewardTrainer

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.seeds import seed_of_run
from gemsmith.contracts.stage import Stage
from gemsmith.policy.config import LoraConfig
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.training.engine import remove_checkpoints, run_training, training_arguments
from gemsmith.policy.training.kept_checkpoints import kept_policy
from gemsmith.policy.training.lifecycle import trained
from gemsmith.policy.training.processes import wait_for_all
from gemsmith.reward_models.config import WarmStage
from gemsmith.reward_models.model import load_reward_model, load_tokenizer, save_reward_model
from gemsmith.reward_models.pairs import Pair

SHOWN = ("loss", "accuracy", "margin")


@dataclass(frozen=True)
class MemberPlan:
    """Settings that differ between members; `start` is a step of the SFT stage, or None for its last step."""

    member: int
    learning_rate: float
    dropout: float
    seed: int
    start: int | None = None


def member_plans(config: WarmStage, seed: int) -> list[MemberPlan]:
    """Return the learning rate, dropout, start and seed (data order, dropout masks) of each of the M members."""
    rates = config.learning_rates or [factor * config.learning_rate for factor in (0.5, 1.0, 2.0)]
    return [
        MemberPlan(
            member=member,
            learning_rate=rates[member % len(rates)],
            dropout=config.dropouts[member % len(config.dropouts)],
            seed=seed_of_run(seed, member + 1),
            start=config.starts[member % len(config.starts)] if config.starts else None,
        )
        for member in range(config.members)
    ]


def train_member(
    config: WarmStage,
    plan: MemberPlan,
    stage: Stage,
    probed: Path,
    pairs: Sequence[Pair],
    folder: Path,
    together: bool = False,
) -> None:
    """Train a member from the probed model and write it to `folder`; resume from a checkpoint if there is one.

    Args:
        config: optimisation settings.
        plan: settings of this member.
        stage: the running stage, with its engine and the folders of earlier policies.
        probed: folder of the model with the shared head.
        pairs: training pairs, already within the length limit.
        folder: folder of the finished member; checkpoints are next to it until then.
        together: True if other members are trained in other processes at the same time.
    """
    checkpoints = checkpoints_of(folder)
    model = _start(config, plan, stage, probed)
    arguments = training_arguments(
        config,
        stage,
        checkpoints,
        args_class=RewardConfig,
        model=model,
        learning_rate=plan.learning_rate,
        seed=plan.seed,
        data_seed=plan.seed,
        disable_dropout=False,
        max_length=None,
        center_rewards_coefficient=config.centre,
    )
    tokenizer = load_tokenizer(probed)
    rows: list[dict[str, Any]] = [
        {"chosen_ids": list(pair.chosen_ids), "rejected_ids": list(pair.rejected_ids)} for pair in pairs
    ]
    if config.margin is not None:
        rows = [
            {**row, "margin": pair.margin} for row, pair in zip(rows, pairs, strict=True)
        ]  # TRL reads the column "margin"
    trainer = RewardTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=peft_config(config.lora, _adapter_dropout(config, plan)) if config.lora else None,
    )
    run_training(trainer, stage, checkpoints, shown=SHOWN, together=together, member=plan.member)
    result = trained(trainer)
    if result is not None:
        save_reward_model(result, tokenizer, folder)
        remove_checkpoints(checkpoints)
    wait_for_all()


def checkpoints_of(folder: Path) -> Path:
    """Return the folder of the checkpoints of the member that is written to `folder`."""
    return folder.with_name(f"{folder.name}.checkpoints")


def start_folder(config: WarmStage, stage: Stage, step: int) -> Path:
    """Return the folder of the policy at `step` of the stage that `policy.from` names.

    Raises:
        UserError: `policy.from` does not name a stage, or the stage did not keep that step.
    """
    source = None if config.policy is None else config.policy.from_
    if source is None or source not in stage.inputs:
        raise UserError("`starts` needs a stage of kind sft in policy.from: set policy.from to the id of that stage.")
    return kept_policy(stage.inputs[source], step)


def _start(config: WarmStage, plan: MemberPlan, stage: Stage, probed: Path) -> Gemma3TextForSequenceClassification:
    """Load the probed model; with `plan.start`, replace its layers, but not its head, by that step's (Baklava)."""
    dropout = plan.dropout if config.dropout_in == "attention" else 0.0
    model = load_reward_model(probed, attention_of(config), dropout)
    if plan.start is not None:
        assert config.policy is not None
        folder = start_folder(config, stage, plan.start)
        earlier = load_policy(config.policy, {str(config.policy.from_): folder}, stage.root)
        model.model.load_state_dict(earlier.model.model.state_dict())
    return model


def _adapter_dropout(config: WarmStage, plan: MemberPlan) -> float:
    assert config.lora is not None
    return plan.dropout if config.dropout_in == "lora" else config.lora.dropout


def attention_of(config: WarmStage) -> str:
    """Return the attention implementation of the stage's policy."""
    return "auto" if config.policy is None else config.policy.attention


def peft_config(lora: LoraConfig, dropout: float) -> PeftLoraConfig:
    """Return PEFT's configuration of adapters with this dropout; the head is fully trained."""
    return PeftLoraConfig(
        task_type="SEQ_CLS",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=dropout,
        target_modules=lora.targets,
        modules_to_save=["score"],
    )
