"""SFT policies `tiny` of the toy language, by the project's own trainer, and their completions."""

import random
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from trl import SFTConfig

from benchmarks.fidelity.claim import Setting
from benchmarks.fidelity.code import ROOT
from benchmarks.fidelity.toys.language import LONGEST, Language, prompts
from gemsmith.contracts.stage import Stage
from gemsmith.policy.config import PolicyConfig, SamplingConfig
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.transformers_sampler import TransformersSampler
from gemsmith.policy.text.chat import completion_ids, prompt_ids
from gemsmith.policy.training.engine import run_training, training_arguments
from gemsmith.policy.training.lifecycle import save_trained
from gemsmith.rl.stages.sft.config import SftStage
from gemsmith.rl.stages.sft.trainer import SftTrainer

ROOM = LONGEST + 2  # tokens of a completion: its letters, the end of the turn, and one to spare
EARLIER = (4, 5)  # sixths of the training at which policies are kept for Baklava


def make_policy(folder: Path, setting: Setting, seed: int, init: int) -> Path:
    """Train `tiny` from weights of seed `init` on the language of `seed`; the folder of the policy.

    Beside it stand `earlier-4` and `earlier-5`, the policy at that many sixths of the training.
    """
    stage = Stage(id="sft", folder=folder, seed=init, root=ROOT)
    policy = load_policy(policy_config("tiny"), seed=init)
    every = setting["sft_steps"] // 6
    config = SftStage(
        id="sft", kind="sft", data="-", steps=6 * every, batch=32, learning_rate=3e-3, warmup=every, save_every=every,
        log_every=every,
    )  # fmt: skip
    checkpoints = folder / "checkpoints"
    arguments = training_arguments(
        config, stage, checkpoints, args_class=SFTConfig, model=policy.model, sliceable=True, max_length=None,
        save_total_limit=None, dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    trainer = SftTrainer(
        model=policy.model, args=arguments, train_dataset=Dataset.from_list(_demonstrations(policy, seed)),
        processing_class=policy.tokenizer, sequence_parallel=1,
    )  # fmt: skip
    run_training(trainer, stage, checkpoints)
    for sixths in EARLIER:
        earlier = load_policy(policy_config(str(checkpoints / f"checkpoint-{sixths * every}")))
        save_policy(earlier, folder / f"earlier-{sixths}")
    save_trained(trainer, policy, stage.output, checkpoints)
    return stage.output


def _demonstrations(policy: Policy, seed: int) -> list[dict[str, list[int]]]:
    """Tokens of prompts and completions of the language; only completions are labels."""
    draw, language = random.Random(f"demonstrations {seed}"), Language(seed)
    rows = []
    for prompt in prompts(3000, draw):
        first = prompt_ids(policy.tokenizer, messages(prompt))
        second = completion_ids(policy.tokenizer, language.completion(prompt, draw))
        rows.append({"input_ids": first + second, "labels": [-100] * len(first) + second})
    return rows


def policy_config(model: str) -> PolicyConfig:
    """Return a policy by name or folder; at sequences of thirty tokens the dense mask is the fastest."""
    return PolicyConfig(model=model, attention="sdpa")


def messages(prompt: str) -> list[dict[str, str]]:
    """Return the conversation of a prompt."""
    return [{"role": "user", "content": prompt}]


def sampled(policy: Policy, asked: Sequence[str], n: int, seed: int) -> list[str]:
    """n completions of each prompt by the policy, prompt by prompt."""
    sampler = TransformersSampler(policy, SamplingConfig(max_tokens=ROOM))
    return sampler.sample([prompt_ids(policy.tokenizer, messages(prompt)) for prompt in asked], n, seed).text


def tokens_of(policy: Policy, prompt: str, completion: str) -> tuple[int, ...]:
    """Return a prompt with a completion, as reward models read them."""
    first = prompt_ids(policy.tokenizer, messages(prompt))
    return (*first, *completion_ids(policy.tokenizer, completion))
