"""Contract tests that run on every kind of reward of the recipe schema."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from gemsmith.contracts.stage import Stage
from gemsmith.policy.config import PolicyConfig
from gemsmith.rl.rewards.compose import Rewards, open_rewards
from gemsmith.rl.rewards.config import (
    AnyReward,
    CodeReward,
    FormatReward,
    HttpReward,
    InstructionsReward,
    LanguageReward,
    LengthReward,
    MathReward,
    PythonReward,
    RefusalReward,
    RewardConfig,
    RewardModelReward,
)
from tests.rl.rewards.kinds.test_http import judging, serving

KINDS: list[type[RewardConfig]] = list(get_args(get_args(AnyReward)[0]))
PROMPTS = ["1 + 1 =", "1 + 2 =", "1 + 1 =", "2 + 2 ="]
COMPLETIONS = ["2", "Ich weiß es nicht, aber es wird wohl die Vier sein.", "\\boxed{2}", ""]
COLUMNS: dict[str, list[Any]] = {
    "answer": ["2", "3", "2", "4"],
    "task": [None, "sums", None, "sums"],
    "system": [None, "Be brief.", None, None],
    "level": [1, 2, 3, 4],
    "label": ["safe", "unsafe", None, False],
    "instruction_id_list": [["punctuation:no_comma", "startend:quotation"], None, ["punctuation:no_comma"], []],
    "kwargs": [[None, {}], None, [{}], []],
    "tests": [{"stdio": [["", ""]]}, None, {"stdio": [["", ""]]}, {"stdio": [["", ""]]}],
}


def mathematics(folder: Path) -> tuple[RewardConfig, dict[str, Path]]:
    return MathReward(kind="math"), {}


def code(folder: Path) -> tuple[RewardConfig, dict[str, Path]]:
    """The program `2` prints nothing, which its test expects."""
    return CodeReward(kind="code"), {}


def instructions(folder: Path) -> tuple[RewardConfig, dict[str, Path]]:
    return InstructionsReward(kind="instructions"), {}


def length(folder: Path) -> tuple[RewardConfig, dict[str, Path]]:
    return LengthReward(kind="length", low=1, high=4, slack=10), {}


def language(folder: Path) -> tuple[RewardConfig, dict[str, Path]]:
    """Return a language reward; only the second completion has words."""
    return LanguageReward(kind="language", expect="de"), {}


def form(folder: Path) -> tuple[RewardConfig, dict[str, Path]]:
    return FormatReward(kind="format", pattern="[0-9]", json_=True, boxed=True), {}


def refusal(folder: Path) -> tuple[RewardConfig, dict[str, Path]]:
    return RefusalReward(kind="refusal"), {}


def python(folder: Path) -> tuple[RewardConfig, dict[str, Path]]:
    (folder / "mine.py").write_text(
        "def closeness(prompts, completions, answer, **columns):\n"
        "    return [None if not c else -float(len(c)) for c in completions]\n"
    )
    return PythonReward(kind="python", target="mine.py:closeness"), {}


def reward_model(folder: Path) -> tuple[RewardConfig, dict[str, Path]]:
    """Return a reward on a real tiny Gemma 3 with a non-zero head."""
    import torch

    from gemsmith.policy.loading.load import load_policy
    from gemsmith.reward_models.model import from_policy, save_reward_model

    policy = load_policy(PolicyConfig(model="tiny"), seed=0)
    model = from_policy(policy)
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    save_reward_model(model, policy.tokenizer, folder / "model")
    return RewardModelReward(kind="reward_model", from_="warm", batch=2), {"warm": folder / "model"}


MAKERS: dict[type[RewardConfig], Callable[[Path], tuple[RewardConfig, dict[str, Path]]]] = {
    MathReward: mathematics,
    CodeReward: code,
    InstructionsReward: instructions,
    LengthReward: length,
    LanguageReward: language,
    FormatReward: form,
    RefusalReward: refusal,
    PythonReward: python,
    RewardModelReward: reward_model,
}


@pytest.fixture(scope="module", autouse=True)
def judge():
    """Return a judge that replies with the completion's length."""
    with serving(judging(lambda asked: str(len(asked)))) as server:
        config = HttpReward(kind="http", url=server.url, model="judge", prompt="{completion}", scale=[0, 100])
        MAKERS[HttpReward] = lambda folder: (config, {})
        yield


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def rewards(request: pytest.FixtureRequest, tmp_path: Path):
    config, inputs = MAKERS[request.param](tmp_path)
    stage = Stage(id="rl", folder=tmp_path / "s", seed=0, root=tmp_path, inputs=inputs, rewards={"it": config})
    with open_rewards(["it"], stage) as opened:
        yield opened


def each(rewards: Rewards, order: list[int]) -> list[float | None]:
    columns = {name: [values[i] for i in order] for name, values in COLUMNS.items()}
    return rewards.score([PROMPTS[i] for i in order], [COMPLETIONS[i] for i in order], columns).each["it"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_reward_is_read_from_a_recipe_as_it_is_written(kind: type[RewardConfig], tmp_path: Path):
    config, _ = MAKERS[kind](tmp_path)
    written = config.model_dump(mode="json", by_alias=True)
    assert TypeAdapter(AnyReward).validate_python(written, strict=True) == config  # a recipe's values are strict


def test_a_reward_gives_one_float_or_none_for_each_completion(rewards: Rewards):
    scores = each(rewards, [0, 1, 2, 3])
    assert len(scores) == 4
    assert all(score is None or type(score) is float for score in scores)
    assert len(set(scores)) > 1


def test_a_reward_is_the_same_on_every_call(rewards: Rewards):
    assert each(rewards, [0, 1, 2, 3]) == each(rewards, [0, 1, 2, 3])


def test_a_reward_of_a_sample_does_not_depend_on_its_place_in_the_batch(rewards: Rewards):
    scores = each(rewards, [0, 1, 2, 3])
    assert each(rewards, [3, 1, 0, 2]) == pytest.approx([scores[i] for i in (3, 1, 0, 2)], abs=1e-5)
    assert each(rewards, [1]) == pytest.approx([scores[1]], abs=1e-5)


def test_an_empty_batch_has_no_rewards(rewards: Rewards):
    assert each(rewards, []) == []


def test_a_reward_can_be_closed_twice(rewards: Rewards):
    each(rewards, [0])
    rewards.close()
    rewards.close()
