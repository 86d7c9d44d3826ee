"""Training at another sampling temperature than 1: everything is scored under the distribution that was sampled."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import ReasoningGymData
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.head.logprobs import listed_logprobs, sequence_logprobs, weighted_logprobs
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.transformers_sampler import TransformersSampler
from gemsmith.policy.text.chat import prompt_ids
from gemsmith.policy.weight_set import WeightSet
from gemsmith.rl.algorithms.algorithm import build
from gemsmith.rl.rewards.compose import open_rewards
from gemsmith.rl.rewards.config import PythonReward
from gemsmith.rl.rollouts.rollout import RolloutCollector
from gemsmith.rl.stages.distill.config import DistillStage
from gemsmith.rl.stages.reinforcement.config import BondStage, ReinforceStage
from gemsmith.rl.stages.reinforcement.stage import run, training_prompts
from tests.messages import raises_facts

pytestmark = pytest.mark.usefixtures("shallow_tiny")

COLD = {"temperature": 0.5, "max_tokens": 1}
COIN = """
import random

def coin(completions, **columns):
    return [float(random.Random(f"{n} {c}").random() < 0.5) for n, c in enumerate(completions)]
"""


def stage_at(folder: Path) -> Stage:
    (folder / "mine.py").write_text(COIN)
    data = ReasoningGymData.model_validate({"source": "reasoning_gym", "task": "chain_sum", "size": 60})
    rewards = {"coin": PythonReward(kind="python", target="mine.py:coin")}
    return Stage("s", folder / "stage", 0, root=folder, data={"sums": data}, rewards=rewards)


def config_of(kind: str, **fields: Any) -> BondStage | ReinforceStage:
    given = {
        **{"id": "s", "kind": kind, "policy": PolicyConfig(model="tiny"), "data": "sums", "rewards": ["coin"]},
        **{"steps": 1, "batch": 16, "learning_rate": 3e-3, "sampling": COLD, **fields},
    }
    return (BondStage if kind == "bond" else ReinforceStage).model_validate(given)


def entropies(policy: Policy, prompts: list[list[int]]) -> Tensor:
    """Return the entropy of the first token's distribution at temperature 1, [P], in nats."""
    with torch.no_grad():
        logits = [policy.model(input_ids=torch.tensor([ids])).logits[0, -1] for ids in prompts]
    return torch.distributions.Categorical(logits=torch.stack(logits)).entropy()


@pytest.mark.parametrize("form", ["jbond", "bond"])
def test_a_reward_without_information_does_not_sharpen_the_policy(tmp_path: Path, form: str) -> None:
    config, stage = config_of("bond", steps=40, form=form, n=2), stage_at(tmp_path)
    start = load_policy(PolicyConfig(model="tiny"))
    prompts = [prompt_ids(start.tokenizer, example.messages) for example in training_prompts(config, start, stage)[:8]]
    before = entropies(start, prompts).mean()
    run(config, stage)
    after = entropies(load_policy(PolicyConfig(model=str(stage.output))), prompts).mean()
    # Noise costs half a nat. Scored at temperature 1, the anchor's samples lead to 0.1 nats.
    assert before > 5.9 and after > before - 1


@pytest.mark.parametrize(("kind", "fields"), [("bond", {}), ("reinforce", {"updates": 2, "steps": 2})])
def test_each_log_probability_is_at_the_sampling_temperature(tmp_path: Path, kind: str, fields: dict[str, Any]) -> None:
    config, stage = (
        config_of(kind, batch=4, sampling={"temperature": 0.5, "max_tokens": 5}, **fields),
        stage_at(tmp_path),
    )
    policy = load_policy(PolicyConfig(model="tiny"))
    initial, anchor = WeightSet(policy.model), WeightSet(policy.model)
    with torch.no_grad():  # live weights that differ from the initial ones and from the anchor's
        for parameter in policy.model.parameters():
            parameter.mul_(1.05)
    anchor.update(0.5)
    examples = training_prompts(config, policy, stage)[:4]
    with open_rewards(config.rewards, stage) as rewards:
        sampler = TransformersSampler(policy, config.sampling, anchor)
        algorithm = build(config)
        collector = RolloutCollector(policy, sampler, rewards, algorithm, initial, anchor, 4, config.sampling)
        rollouts, metrics = collector.collect(examples, seed=1)
    draw, n = rollouts.policy, len(rollouts.policy.ids) // 4
    repeated = [prompt for prompt in rollouts.prompts for _ in range(n)]

    def expected(weights: WeightSet | None) -> Tensor:
        with nullcontext() if weights is None else weights.applied():
            return sequence_logprobs(policy.model, repeated, draw.ids, 0.5).view(-1, n)

    def close(found: Tensor | None, weights: WeightSet | None) -> bool:
        assert found is not None
        return torch.allclose(found, expected(weights), atol=1e-4)

    assert close(draw.logprob_PN, None) and close(draw.initial_logprob_PN, initial)
    assert not torch.allclose(expected(None), expected(initial), atol=0.1)
    if algorithm.needs_anchor_logprob:
        assert close(draw.anchor_logprob_PN, anchor)
    if draw.tokens is not None:
        under_live = listed_logprobs(policy.model, repeated, draw.ids, 0.5)
        assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(draw.tokens, under_live, strict=True))
    kl = (expected(None) - expected(initial)).mean().item()
    assert metrics["kl_to_initial"] == pytest.approx(kl, abs=1e-3)


def test_the_loss_at_another_temperature_has_the_gradient_of_plain_logits() -> None:
    policy = load_policy(PolicyConfig(model="tiny"))
    prompts, completions, weight_S = [[2, 300, 301], [2, 302]], [[303, 304], [305]], torch.tensor([0.5, -2.0])
    total, _ = weighted_logprobs(policy.model, prompts, completions, weight_S, temperature=0.5)
    (found,) = torch.autograd.grad(total, [policy.model.get_input_embeddings().weight])
    plain = torch.zeros(())
    for prompt, completion, weight in zip(prompts, completions, weight_S, strict=True):
        logits_LV = policy.model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0].float() / 0.5
        logprobs_TV = logits_LV[len(prompt) - 1 : -1].log_softmax(-1)
        plain = plain + weight * logprobs_TV.gather(-1, torch.tensor(completion)[:, None]).sum()
    (expected,) = torch.autograd.grad(plain, [policy.model.get_input_embeddings().weight])
    assert total.item() == pytest.approx(plain.item(), abs=1e-4)
    assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("sampling", [{"top_p": 0.9}, {"top_k": 40}])
@pytest.mark.parametrize("kind", ["bond", "reinforce"])
def test_truncated_sampling_is_refused_with_the_reason(kind: str, sampling: dict[str, Any]) -> None:
    (name,) = sampling
    with raises_facts(ValidationError, f"sampling.{name}", "log-probabilities", f"set {name}"):
        config_of(kind, sampling=sampling)


def test_truncated_sampling_is_refused_for_rewards_of_a_distillation_only() -> None:
    given = {
        **{"id": "s", "kind": "distill", "teacher": {"model": "tiny"}, "data": "sums", "on_policy": 1.0},
        **{"steps": 1, "batch": 2, "learning_rate": 1e-3, "sampling": {"top_p": 0.9}},
    }
    assert DistillStage.model_validate(given).sampling.top_p == 0.9
    with raises_facts(ValidationError, "sampling.top_p", "a reward"):
        DistillStage.model_validate({**given, "rewards": ["correct"]})


def test_only_stages_at_another_temperature_have_a_new_identity() -> None:
    assert config_of("bond", sampling={"temperature": 1.0}).changed_results() == {}
    assert config_of("bond").changed_results() == {"scored_at": "sampling temperature"}
