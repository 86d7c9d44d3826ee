"""Trainings of tiny Gemma 3 policies by TRL's trainers, from the same start, prompts and reward as ours."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from benchmarks.fidelity.claim import Setting
from benchmarks.fidelity.toys.tiny_policies import ROOM, messages
from benchmarks.fidelity.toys.trajectory import learnt
from gemsmith.policy.loading.load import save_policy
from gemsmith.policy.policy import Policy
from gemsmith.rl.rewards.reward import Reward

Rival = Literal["grpo", "rloo"]
RIVALS: dict[str, tuple[Any, Any]] = {"grpo": (GRPOConfig, GRPOTrainer), "rloo": (RLOOConfig, RLOOTrainer)}


def train_rival(
    rival: Rival,
    start: Path,
    options: Mapping[str, Any],
    setting: Setting,
    seed: int,
    folder: Path,
    keep: Sequence[int],
    reward: Reward,
) -> dict[int, Path]:
    """Train with TRL from the policy in `start`; the policies of the steps to keep.

    Everything is as TRL has it but what the comparison holds equal: prompts and completions a step, the number of
    tokens, AdamW with a constant learning rate behind five steps of warm-up, and float32 without recomputation. The
    norm at which gradients are clipped, 1, and the temperature, 1, are the same on both sides by default.

    Args:
        rival: `grpo` or `rloo`.
        start: folder of the initial policy, whose generation config names both ends of a turn.
        options: fields of TRL's configuration.
        setting: `prompts` and `samples` of a step, `steps`, `asked`.
        seed: of the prompts, their order and the samples.
        folder: where the policies are kept.
        keep: steps, the last one among them.
        reward: what is learnt.
    """
    configuration, trainer_class = RIVALS[rival]
    tokenizer = AutoTokenizer.from_pretrained(start)
    completions = setting["prompts"] * setting["samples"]
    arguments = configuration(
        output_dir=str(folder),
        max_steps=setting["steps"],
        per_device_train_batch_size=completions,
        num_generations=setting["samples"],
        max_completion_length=ROOM,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=5,
        optim="adamw_torch_fused",
        bf16=False,
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": "float32"},
        use_cpu=True,
        dataloader_pin_memory=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        **options,
    )

    def gold(prompts: list[Any], completions: list[Any], **_: Any) -> list[float | None]:
        asked = [prompt[-1]["content"] for prompt in prompts]
        return reward.score(asked, [completion[0]["content"] for completion in completions], {})

    examples = learnt(setting, seed)
    random.Random(seed).shuffle(examples)
    trainer = trainer_class(
        model=str(start),
        reward_funcs=gold,
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": messages(prompt)} for prompt in examples]),
        processing_class=tokenizer,
    )
    for callback in list(trainer.callback_handler.callbacks):
        if "Print" in type(callback).__name__ or "Progress" in type(callback).__name__:
            trainer.remove_callback(callback)
    trainer.add_callback(_Keep(folder, keep, tokenizer))
    trainer.train()
    return {step: folder / str(step) for step in keep}


class _Keep(TrainerCallback):
    """Saves the policy after some steps, in our format."""

    def __init__(self, folder: Path, steps: Sequence[int], tokenizer: Any) -> None:
        self._folder, self._steps, self._tokenizer = folder, steps, tokenizer

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if state.global_step in self._steps:
            save_policy(Policy(model, self._tokenizer), self._folder / str(state.global_step))
