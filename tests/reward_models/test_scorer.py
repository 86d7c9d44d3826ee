import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gemsmith.contracts.errors import UserError
from gemsmith.policy.loading.load import save_policy
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.text.chat import completion_ids, prompt_ids
from gemsmith.reward_models.model import from_policy, load_reward_model, save_reward_model
from gemsmith.reward_models.scorer import RewardScorer, score_sequences
from tests.messages import raises_facts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    policy = tiny_policy()
    model = from_policy(policy)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.score.weight)
    folder = tmp_path_factory.mktemp("models") / "reward"
    save_reward_model(model, policy.tokenizer, folder)
    return folder


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_fresh_reward_model_gives_zero_and_leaves_the_random_generator_alone():
    policy = tiny_policy()
    before = torch.get_rng_state()
    model = from_policy(policy).eval()
    assert torch.equal(torch.get_rng_state(), before)
    assert score_sequences(model, [[2, 5, 6], [2, 7]], batch=2) == [0.0, 0.0]


def test_scores_are_those_of_the_plain_model_on_each_sequence_alone(folder: Path):
    scorer = RewardScorer(folder, batch=3)
    prompts = [user(f"{number} + {number} =") for number in range(8)]
    completions = ["It is " * number + "7" for number in range(8)]  # lengths from below to beyond the window of 16
    scores = scorer.score(prompts, completions)
    model = load_reward_model(folder).eval()
    for prompt, completion, score in zip(prompts, completions, scores, strict=True):
        ids = prompt_ids(scorer.tokenizer, prompt) + completion_ids(scorer.tokenizer, completion)
        with torch.no_grad():
            plain = model(torch.tensor([ids])).logits.item()
        assert score == pytest.approx(plain, abs=1e-4)
    assert max(scores) - min(scores) > 0.1


def test_scores_do_not_depend_on_the_company_or_the_order(folder: Path):
    prompts = [user(f"{number}") for number in range(9)]
    completions = [f"{number} " * (9 - number) for number in range(9)]
    together = RewardScorer(folder, batch=9).score(prompts, completions)
    alone = [RewardScorer(folder, batch=1).score([p], [c])[0] for p, c in zip(prompts, completions, strict=True)]
    reverse = RewardScorer(folder, batch=4).score(prompts[::-1], completions[::-1])[::-1]
    assert together == pytest.approx(alone, abs=1e-4)
    assert together == pytest.approx(reverse, abs=1e-4)


def test_equal_completions_of_equal_prompts_have_equal_scores(folder: Path):
    scorer = RewardScorer(folder, batch=2)
    scores = scorer.score([user("a")] * 5, ["x", "yy", "x", "zzz", "x"])
    assert scores[0] == scores[2] == scores[4] != scores[1]  # exactly equal, because J-BOND compares them
    assert scorer.score([], []) == []


def test_other_folders_are_the_users_fault(tmp_path: Path):
    save_policy(tiny_policy(), tmp_path / "policy")
    with raises_facts(UserError, "Gemma3ForCausalLM", "Gemma3TextForSequenceClassification"):
        RewardScorer(tmp_path / "policy", batch=1)
    with raises_facts(UserError, "nothing/config.json", "warm"):
        RewardScorer(tmp_path / "nothing", batch=1)


def changed(folder: Path, copy: Path, **tensors: torch.Tensor | None) -> Path:
    """Copy a reward model with some tensors replaced, or removed (None)."""
    shutil.copytree(folder, copy)
    held = load_file(copy / "model.safetensors") | {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    kept = {name: tensor for name, tensor in held.items() if tensor is not None}
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def test_a_model_that_is_not_whole_is_not_completed_at_random(folder: Path, tmp_path: Path):
    with raises_facts(UserError, "headless", "lacks 1", "(score.weight)"):
        load_reward_model(changed(folder, tmp_path / "headless", score__weight=None))
    with raises_facts(UserError, "tensor score.weight", "other", "[1, 7]", "config.json"):
        load_reward_model(changed(folder, tmp_path / "other", score__weight=torch.zeros(1, 7)))
    cut = shutil.copytree(folder, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    with raises_facts(UserError, tmp_path / "cut", "could not be read", "warm"):
        load_reward_model(cut)
    (cut / "config.json").write_text("[]")
    with raises_facts(UserError, "cut/config.json", "could not be read"):
        load_reward_model(cut)


def test_a_tokenizer_that_is_not_there_is_not_made_up(folder: Path, tmp_path: Path):
    bare = shutil.copytree(folder, tmp_path / "bare", ignore=shutil.ignore_patterns("token*", "chat*"))
    with raises_facts(UserError, "tokenizer", tmp_path / "bare"):
        RewardScorer(bare, batch=1)


def test_what_is_longer_than_the_context_is_not_scored(folder: Path):
    scorer = RewardScorer(folder, batch=1)
    room = (
        512 - len(prompt_ids(scorer.tokenizer, user("a"))) - 1
    )  # the context of `tiny` without the prompt and the end of turn
    scorer.score([user("a")], ["1" * room])
    with raises_facts(UserError, "513 tokens", "context", 512, "sampling.max_tokens"):
        scorer.score([user("a")], ["1" * (room + 1)])
