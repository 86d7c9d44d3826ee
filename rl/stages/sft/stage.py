"""The sft stage: supervised fine-tuning with TRL's SFTTrainer.

The loss covers the completion and its end-of-turn token only.
"""

from collections.abc import Sequence

from datasets import Dataset
from trl import SFTConfig

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.processes import rank
from gemsmith.contracts.stage import Stage
from gemsmith.curation.example import Example
from gemsmith.curation.load import load_data
from gemsmith.policy.config import LoraConfig
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.text.chat import completion_ids, prompt_ids
from gemsmith.policy.text.endings import untaught_end
from gemsmith.policy.training.engine import run_training, training_arguments
from gemsmith.policy.training.kept_checkpoints import KeepPolicies, write_index
from gemsmith.policy.training.lifecycle import save_trained, trainable
from gemsmith.rl.stages.sft.config import SftStage
from gemsmith.rl.stages.sft.trainer import SftTrainer


def run(config: SftStage, stage: Stage) -> None:
    """Fine-tune `config.policy` on the demonstrations of `config.data` and save it to `stage.output`.

    The policies after `config.keep_steps` are saved beside it (`gemsmith.policy.training.kept_checkpoints`).
    """
    assert config.policy is not None
    if stage.output.exists():  # the run was killed after saving and before the stage was recorded as finished
        return
    policy = load_policy(config.policy, stage.inputs, stage.root, seed=stage.seed, tokens=config.stated_length)
    examples = load_data(stage.data[config.data], name=config.data, seed=stage.seed, root=stage.root).train
    rows = demonstration_tokens(examples, policy, config.max_length, config.data, stage)
    tell_untaught_end(policy, config.lora, [(row["prompt"], row["completion"]) for row in rows], stage)
    model = trainable(policy, config.lora, stage.seed)
    folder = stage.checkpoints
    arguments = training_arguments(
        config,
        stage,
        folder,
        args_class=SFTConfig,
        model=model,
        sliceable=True,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SftTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([_labelled(row) for row in rows]),
        processing_class=policy.tokenizer,
        sequence_parallel=stage.engine.sequence_parallel if stage.engine else 1,
    )
    trainer.add_callback(KeepPolicies(stage, config.keep_steps, policy.tokenizer))
    if rank() == 0:
        write_index(stage, config.keep_steps, config.steps)
    run_training(trainer, stage, folder)
    save_trained(trainer, policy, stage.output, folder)


def tell_untaught_end(
    policy: Policy, lora: LoraConfig | None, demonstrations: Sequence[tuple[list[int], list[int]]], stage: Stage
) -> None:
    """Warn if LoRA cannot teach the end-of-turn token because its embedding is untrained."""
    if lora is not None and (word := untaught_end(policy, demonstrations)):
        stage.say(word)


def demonstration_tokens(
    examples: Sequence[Example], policy: Policy, max_length: int, name: str, stage: Stage
) -> list[dict[str, list[int]]]:
    """Return the token ids of demonstrations as rows of `prompt` and `completion`; see `fitting_demonstrations`."""
    fitting = fitting_demonstrations(examples, policy, max_length, name, stage)
    return [{"prompt": prompt, "completion": completion} for _, prompt, completion in fitting]


def fitting_demonstrations(
    examples: Sequence[Example], policy: Policy, max_length: int, name: str, stage: Stage
) -> list[tuple[Example, list[int], list[int]]]:
    """Return examples with the token ids of their prompts and demonstrations, which end with `<end_of_turn>`.

    Examples whose prompt and demonstration together exceed `max_length` tokens are dropped, and their number reported.

    Raises:
        UserError: no example has a demonstration, or all are too long.
    """
    shown = [example for example in examples if example.demonstration is not None]
    if not shown:
        raise UserError(
            f"data.{name} has no demonstrations: map them with `demonstration`, or make them with `synthesise`"
        )
    fitting = []
    for example in shown:
        prompt = prompt_ids(policy.tokenizer, example.messages)
        completion = completion_ids(policy.tokenizer, str(example.demonstration))
        if len(prompt) + len(completion) <= max_length:
            fitting.append((example, prompt, completion))
    if not fitting:
        raise UserError(
            f"data.{name}: every demonstration with its prompt is longer than max_length = {max_length}: raise "
            "max_length"
        )
    if len(fitting) < len(shown):
        stage.say(f"data.{name}: dropped {len(shown) - len(fitting)} demonstrations longer than {max_length} tokens")
    return fitting


def _labelled(row: dict[str, list[int]]) -> dict[str, list[int]]:
    """Return a row in TRL's format; prompt tokens have the label -100, which the loss ignores."""
    prompt, completion = row["prompt"], row["completion"]
    return {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}
