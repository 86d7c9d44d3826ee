"""Combined rewards of WARM's members, with real tiny Gemma 3 models."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
import torch

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.curation.example import Example
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.reward_models.model import from_policy, save_reward_model
from gemsmith.reward_models.scorer import RewardScorer
from gemsmith.rl.rewards.compose import open_rewards
from gemsmith.rl.rewards.config import RewardModelReward
from gemsmith.rl.rewards.reward import columns_of
from tests.messages import raises_facts

PROMPTS, COMPLETIONS = ["1 + 1 ="] * 3, ["2", "11", "it is 3"]
OFFSETS = {0: -0.5, 1: 0.25, 2: 0.0}
KEPT = [1, 0]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output of a warm stage with three members that differ in their heads; two are kept."""
    stage = tmp_path_factory.mktemp("warm")
    policy = tiny_policy()
    model = from_policy(policy)
    for name, folder in enumerate(["members/0", "members/1", "members/2", "output"]):
        torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(name))
        save_reward_model(model, policy.tokenizer, stage / folder)
    members = [{"member": member, "mean_reward": offset} for member, offset in OFFSETS.items()]
    (stage / "output" / "warm.json").write_text(json.dumps({"members": members, "kept": KEPT}))
    return stage / "output"


def served(output: Path, **fields: Any) -> list[float | None]:
    reward = RewardModelReward(kind="reward_model", from_="warm", **fields)
    stage = Stage(id="rl", folder=output, seed=0, root=output, inputs={"warm": output}, rewards={"it": reward})
    with open_rewards(["it"], stage) as rewards:
        return rewards.score(PROMPTS, COMPLETIONS, {"system": [None] * 3}).each["it"]


def test_what_is_served_is_the_average_or_the_kept_members_together(output: Path):
    messages = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]

    def plain(folder: Path) -> list[float]:
        return RewardScorer(folder, 8).score(messages, COMPLETIONS)

    middle = fmean(OFFSETS[member] for member in KEPT)
    kept = [plain(output.parent / "members" / str(member)) for member in KEPT]
    columns = [
        [reward - OFFSETS[member] + middle for member, reward in zip(KEPT, rewards, strict=True)]
        for rewards in zip(*kept, strict=True)
    ]
    assert served(output) == plain(output)
    assert served(output, serve="mean") == pytest.approx([fmean(rewards) for rewards in zip(*kept, strict=True)])
    assert served(output, serve="minimum") == pytest.approx([min(column) for column in columns])
    lower = [fmean(column) - 2.0 * pstdev(column) for column in columns]
    assert served(output, serve="lower_bound", deviations=2.0) == pytest.approx(lower)


def test_members_share_one_time_limit(output: Path):
    with raises_facts(RunError, "reward it (reward_model)", "3 completions", "time_limit"):
        served(output, serve="mean", time_limit=1e-6)


def test_members_that_are_not_there_are_the_users_fault(output: Path, tmp_path: Path):
    (tmp_path / "output").symlink_to(output)
    with raises_facts(UserError, "reward it (reward_model)", "`serve: minimum`", "members", "does not exist"):
        served(tmp_path / "output", serve="minimum")


def test_the_reward_is_told_the_whole_conversation(output: Path):
    example = Example("3 ?", system="be brief", history=(("user", "1 ?"), ("assistant", "2")))
    reward = RewardModelReward(kind="reward_model", from_="warm")
    stage = Stage(id="rl", folder=output, seed=0, root=output, inputs={"warm": output}, rewards={"it": reward})
    with open_rewards(["it"], stage) as rewards:
        found = rewards.score(["3 ?"], ["4"], columns_of([example], ["stop"], [[5]])).each["it"]
    assert found == RewardScorer(output, 8).score([example.messages], ["4"])
    assert found != RewardScorer(output, 8).score([replace(example, history=()).messages], ["4"])


def test_a_sample_beyond_the_context_names_the_reward(output: Path):
    reward = RewardModelReward(kind="reward_model", from_="warm")
    stage = Stage(id="rl", folder=output, seed=0, root=output, inputs={"warm": output}, rewards={"it": reward})
    with (
        open_rewards(["it"], stage) as rewards,
        raises_facts(UserError, "reward it (reward_model)", "tokens", "context", 512, "sampling.max_tokens"),
    ):
        rewards.score(["1"], ["2" * 600], {})


def test_a_reward_model_is_not_asked_about_completions_that_were_cut_off(output: Path):
    columns: dict[str, Any] = {"system": [None] * 3, "finished": [True, False, True]}

    def scores(**fields: Any) -> list[float | None]:
        reward = RewardModelReward(kind="reward_model", from_="warm", **fields)
        stage = Stage(id="rl", folder=output, seed=0, root=output, inputs={"warm": output}, rewards={"it": reward})
        with open_rewards(["it"], stage) as rewards:
            return rewards.score(PROMPTS, COMPLETIONS, columns).each["it"]

    whole = scores(cut_off="score")
    assert None not in whole
    assert scores() == [pytest.approx(whole[0]), None, pytest.approx(whole[2])]  # the default
    penalised = scores(cut_off="penalty", cut_off_penalty=2.5)
    assert penalised == [pytest.approx(whole[0]), -2.5, pytest.approx(whole[2])]
