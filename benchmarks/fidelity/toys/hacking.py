"""Policies that learn from reward models by the project's trainer, with the gold reward as the control beside them."""

import json
import random
from pathlib import Path
from statistics import pstdev
from typing import Literal

from benchmarks.fidelity.claim import Setting
from benchmarks.fidelity.code import ROOT
from benchmarks.fidelity.toys.corrupted import make_data, score_all
from benchmarks.fidelity.toys.language import prompts
from benchmarks.fidelity.toys.tiny_policies import ROOM, policy_config
from gemsmith.contracts.stage import Stage
from gemsmith.curation.example import Example
from gemsmith.policy.config import SamplingConfig
from gemsmith.policy.loading.load import load_policy
from gemsmith.reward_models.ensemble import kept_members
from gemsmith.reward_models.pairs import both_sides
from gemsmith.rl.rewards.compose import open_rewards
from gemsmith.rl.rewards.config import PythonReward, RewardModelReward
from gemsmith.rl.stages.reinforcement.config import ReinforceStage
from gemsmith.rl.stages.reinforcement.stage import train_policy

GOLD = "benchmarks.fidelity.toys.gold:Gold"
Serve = Literal["average", "mean", "minimum"]


def spread_of(policy: Path, output: Path, serve: Serve, setting: Setting, seed: int) -> float:
    """Return the standard deviation of a served reward over the policy's held-out completions: its unit in training."""
    sides = both_sides(make_data(load_policy(policy_config(str(policy))), setting, seed).held_out)
    served = [output] if serve == "average" else [member.folder for member in kept_members(output)]
    each = [score_all(folder, sides) for folder in served]
    return pstdev([sum(column) / len(column) for column in zip(*each, strict=True)])


def learn(
    policy: Path, output: Path, serve: Serve, setting: Setting, seed: int, folder: Path
) -> list[dict[str, float]]:
    """Run REINFORCE on the reward model in `output`; return the metrics of every step.

    Args:
        policy: folder of the initial policy.
        output: folder of a reward model, or of an average with its members beside it.
        serve: use the model itself as the reward, or its members together.
        setting: `steps`, `prompts` (a step), `samples` (a prompt), `rate` and `kl` (a nat, in standard deviations of
            the reward), and what `make_data` reads.
        seed: of the language, the prompts and the samples: the same for every reward.
        folder: where the run is done.

    Returns:
        For each step kl_to_initial (nats), reward (in standard deviations over the initial policy's completions) and
        control/gold, all of the step's completions before it is learnt from.
    """
    unit = spread_of(policy, output, serve, setting, seed)
    stage = Stage(
        id="hacking", folder=folder, seed=seed, root=ROOT, inputs={"warm": output},
        rewards={
            "learnt": RewardModelReward.model_validate(
                {"kind": "reward_model", "from": "warm", "serve": serve, "weight": 1 / unit}
            ),
            "gold": PythonReward(kind="python", target=GOLD, options={"seed": seed}),
        },
    )  # fmt: skip
    config = ReinforceStage(
        id="hacking", kind="reinforce", data="-", rewards=["learnt"], control=["gold"], steps=setting["steps"],
        batch=setting["prompts"], samples=setting["samples"], learning_rate=setting["rate"], schedule="constant",
        kl=setting["kl"], sampling=SamplingConfig(max_tokens=ROOM), save_every=setting["steps"],
    )  # fmt: skip
    examples = [Example(prompt) for prompt in prompts(1024, random.Random(f"hacking {seed}"))]
    start = load_policy(policy_config(str(policy)), seed=seed)
    with open_rewards(["learnt"], stage) as rewards:
        train_policy(start, config, stage, rewards, examples, folder / "checkpoints", stage.output)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
