import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from gemsmith.rl.algorithms.algorithm import Draw, Rollouts, TokenLoss, truncate_importance
from gemsmith.rl.algorithms.reinforce import Reinforce, TokenReinforce, advantages, build_reinforce, penalised_reward
from gemsmith.rl.algorithms.reinforce_config import ReinforceAlgorithm
from tests.messages import raises_facts


def _config(**fields: Any) -> ReinforceAlgorithm:
    common = {"kind": "reinforce", "data": "d", "rewards": ["r"], "steps": 1, "batch": 1, "learning_rate": 0.1}
    return ReinforceAlgorithm(**{**common, **fields})


def test_the_penalty_is_kl_times_the_log_ratio() -> None:
    got = penalised_reward(torch.tensor([[1.0]]), torch.tensor([[-1.0]]), torch.tensor([[-3.0]]), 0.1)
    assert got.item() == pytest.approx(1.0 - 0.1 * (-1.0 + 3.0))


def test_weights_are_penalised_rewards_minus_the_other_samples_of_the_prompt() -> None:
    draw = Draw(
        ids=[[10], [11], [12], [13]],
        learnt_reward_PN=torch.tensor([[1.0, 0.0], [0.5, 0.5]]),
        logprob_PN=torch.tensor([[-1.0, -1.0], [-1.0, -2.0]]),
        initial_logprob_PN=torch.tensor([[-1.0, -2.0], [-1.0, -2.0]]),
    )
    sequences, metrics = Reinforce(_config(kl=0.5)).weigh(Rollouts([[2], [2]], draw))
    first = 1.0 - (0.0 - 0.5 * (-1.0 + 2.0))
    assert [s.weight for s in sequences] == pytest.approx([first / 4, -first / 4])
    assert [s.completion for s in sequences] == [[10], [11]]  # the tied prompt has weight 0
    assert metrics["tie_rate"] == 0.5


def test_the_gradient_estimate_is_unbiased() -> None:
    """Averaged over many samples, sum(weight * grad log pi) is the gradient of expected reward minus kl * KL."""
    torch.manual_seed(0)
    logits_V = torch.tensor([0.3, -0.2, 0.8], dtype=torch.float64, requires_grad=True)
    reference_V = torch.tensor([0.0, 0.5, -0.5], dtype=torch.float64).log_softmax(0)
    reward_V = torch.tensor([1.0, 0.0, 2.0])
    logprob_V = logits_V.log_softmax(0)
    exact = (logprob_V.exp() * (reward_V - 0.3 * (logprob_V - reference_V))).sum()
    (expected,) = torch.autograd.grad(exact, logits_V, retain_graph=True)
    draws = 200_000
    ids_PN = torch.multinomial(logprob_V.exp().detach(), 2 * draws, replacement=True).view(draws, 2)
    draw = Draw(
        [[int(i)] for i in ids_PN.flatten()],
        logprob_V.detach()[ids_PN],
        learnt_reward_PN=reward_V[ids_PN],
        initial_logprob_PN=reference_V[ids_PN],
    )
    sequences, _ = Reinforce(_config(kl=0.3)).weigh(Rollouts([[2]] * draws, draw))
    weight_V = torch.zeros(3, dtype=torch.float64)
    for sequence in sequences:
        weight_V[sequence.completion[0]] += sequence.weight
    (got,) = torch.autograd.grad((weight_V * logprob_V).sum(), logits_V)
    assert torch.allclose(got, expected, atol=0.01)


def test_completions_of_other_weights_are_corrected_and_the_correction_is_truncated() -> None:
    """By enumeration: corrected gradients of samples from q have the expectation under p; a cap bounds them."""
    torch.manual_seed(1)
    logits_V = torch.randn(5, dtype=torch.float64, requires_grad=True)
    logprob_V, drawn_V = logits_V.log_softmax(0), torch.randn(5, dtype=torch.float64).log_softmax(0)
    reward_V = torch.rand(5, dtype=torch.float64)
    (expected,) = torch.autograd.grad((logprob_V.exp() * reward_V).sum(), logits_V, retain_graph=True)
    importance_V1 = (logprob_V - drawn_V).detach().exp()[:, None]
    draw = Draw([[i] for i in range(5)], learnt_reward_PN=reward_V[:, None], importance_PN=importance_V1)
    weight_V1, metrics = truncate_importance(reward_V[:, None], draw, cap=1e9)
    (got,) = torch.autograd.grad((drawn_V.exp() * weight_V1[:, 0] * logprob_V).sum(), logits_V)
    assert torch.allclose(got, expected, atol=1e-12) and metrics["truncated"] == 0
    cap = importance_V1.median().item()
    weight_V1, metrics = truncate_importance(reward_V[:, None], draw, cap)
    assert torch.equal(weight_V1, reward_V[:, None] * importance_V1.clamp(max=cap))
    assert metrics["truncated"] == pytest.approx(0.4) and metrics["importance"] == importance_V1.mean().item()
    assert torch.equal(truncate_importance(reward_V[:, None], draw, None)[0], reward_V[:, None])


def test_group_mean_and_std_are_grpos_advantages() -> None:
    reward_PN = torch.tensor([[1.0, 0.0, 0.0, 0.0], [3.0, 3.0, 3.0, 3.0]])
    std = math.sqrt(0.25 * 0.75) + 1e-4
    got = advantages(reward_PN, "group_mean", "std")
    assert got[0].tolist() == pytest.approx([0.75 / std, *[-0.25 / std] * 3])
    assert got[1].tolist() == [0.0] * 4
    assert advantages(reward_PN, "group_mean", "none")[0].tolist() == [0.75, -0.25, -0.25, -0.25]
    assert advantages(reward_PN, "leave_one_out", "none")[0].tolist() == pytest.approx([4 / 3 * 0.75, *[-1 / 3] * 3])


def test_std_weighs_prompts_by_difficulty() -> None:
    """With a share p of correct answers, a correct one has advantage sqrt((1 - p) / p): a lone success counts most."""
    reward_PN = torch.tensor([[1.0] + [0.0] * 9, [1.0] * 5 + [0.0] * 5, [1.0] * 9 + [0.0]])
    got = advantages(reward_PN, "group_mean", "std")[:, 0]
    assert got.tolist() == pytest.approx([math.sqrt((1 - p) / p) for p in (0.1, 0.5, 0.9)], rel=1e-3)


def test_rewards_that_differ_by_almost_nothing_teach_almost_nothing() -> None:
    """The standard deviation of 0 and 1e-6 is 5e-7: the advantages are 5e-7 / (5e-7 + 1e-4), about 0.005, and not 1."""
    got = advantages(torch.tensor([[0.0, 1e-6]], dtype=torch.float64), "group_mean", "std")
    assert got[0].tolist() == pytest.approx([-5e-7 / 1.005e-4, 5e-7 / 1.005e-4])


def test_equal_rewards_teach_nothing_and_are_counted() -> None:
    draw = _draw([[0.1, 0.1, 0.1], [0.0, 1.0, 0.0]])
    sequences, metrics = Reinforce(_config(samples=3, kl=0.0, baseline="group_mean", scale="std")).weigh(
        Rollouts([[2], [3]], draw)
    )
    assert [s.prompt for s in sequences] == [[3]] * 3
    assert metrics["zero_advantage"] == 0.5


def _draw(reward_PN: list[list[float]], lengths: list[int] | None = None, **fields: Any) -> Draw:
    reward = torch.tensor(reward_PN)
    ids = [[10] * length for length in lengths or [1] * reward.numel()]
    tokens = [torch.full((len(each),), -1.0) for each in ids]
    sums = torch.tensor([-float(len(each)) for each in ids]).view_as(reward)
    more = {"logprob_PN": sums, "initial_logprob_PN": sums, "tokens": tokens, "initial_tokens": tokens}
    return Draw(ids, learnt_reward_PN=reward, **{**more, **fields})


@pytest.mark.parametrize(
    ("norm", "weights"),
    [
        ("none", [0.5, -0.5]),
        ("sequence", [0.5 / 1, -0.5 / 3]),
        ("batch", [0.5 / 2, -0.5 / 2]),  # the mean length of 1 and 3
    ],
)
def test_lengths_divide_what_is_learnt_from_a_completion(norm: str, weights: list[float]) -> None:
    sequences, _ = Reinforce(_config(length_norm=norm)).weigh(Rollouts([[2]], _draw([[1.0, 0.0]], [1, 3])))
    assert [s.weight for s in sequences] == pytest.approx(weights)
    config = _config(length_norm=norm, kl_in="loss", kl=0.4)
    sequences, _ = build_reinforce(config).weigh(Rollouts([[2]], _draw([[1.0, 0.0]], [1, 3])))
    assert [s.kl for s in sequences] == pytest.approx([0.2 * abs(weight) / 0.5 for weight in weights])


def test_what_was_cut_off_is_worth_less() -> None:
    draw = _draw([[1.0, 1.0]], finished_PN=torch.tensor([[True, False]]))
    sequences, metrics = Reinforce(_config(unfinished_penalty=10.0)).weigh(Rollouts([[2]], draw))
    assert [s.weight for s in sequences] == pytest.approx([(1.0 - -9.0) / 2, (-9.0 - 1.0) / 2])
    assert metrics["unfinished_penalty"] == 5.0 and metrics["reward_learnt"] == (1.0 - 9.0) / 2
    assert metrics["zero_advantage"] == 0.0 and metrics["tie_rate"] == 1.0


def test_only_what_is_not_linear_pays_for_single_tokens() -> None:
    assert not isinstance(build_reinforce(_config()), TokenLoss)
    assert not isinstance(build_reinforce(_config(kl_in="loss", kl=0)), TokenLoss)
    assert isinstance(build_reinforce(_config(kl_in="loss")), TokenLoss)
    assert isinstance(build_reinforce(_config(updates=2, steps=2)), TokenLoss)


def test_the_token_loss_at_the_drawing_policy_has_the_gradient_of_the_weighted_sum() -> None:
    """Completions of lengths 1 and 3; with the KL in the loss, its gradient is added at each token."""
    rollouts = Rollouts([[2]], _draw([[1.0, 0.0]], [1, 3], initial_tokens=[torch.zeros(1), torch.zeros(3)]))
    for fields, slope in (({"updates": 2, "steps": 2}, 0.0), ({"kl_in": "loss", "kl_estimator": "k2"}, 0.4 / 2 * -1.0)):
        algorithm = build_reinforce(_config(kl=0.4, **fields))
        assert isinstance(algorithm, TokenReinforce)
        sequences, _ = algorithm.weigh(replace_initial(rollouts) if not slope else rollouts)
        logprobs_23 = torch.tensor([[-1.0, 0.0, 0.0], [-1.0, -1.0, -1.0]], requires_grad=True)
        loss, metrics = algorithm.token_loss(logprobs_23, sequences)
        (got,) = torch.autograd.grad(loss, logprobs_23)
        expected = [-0.5 + slope, 0.0, 0.0], [0.5 + slope] * 3  # log pi - log reference = -1 - 0
        assert torch.allclose(got, torch.tensor(expected))
        assert (len(metrics.get("ratio", [])), len(metrics.get("kl_loss", []))) == ((4, 0) if not slope else (0, 4))


def replace_initial(rollouts: Rollouts) -> Rollouts:
    return Rollouts(rollouts.prompts, replace(rollouts.policy, initial_tokens=rollouts.policy.tokens))


def test_the_ratio_is_told_where_the_policy_has_moved_and_padding_is_no_token() -> None:
    algorithm = build_reinforce(_config(updates=2, steps=2, kl=0.0))
    assert isinstance(algorithm, TokenReinforce)
    sequences, _ = algorithm.weigh(Rollouts([[2]], _draw([[1.0, 0.0]], [1, 3])))
    live = torch.tensor([[-1.0 + math.log(1.5), 0.0, 0.0], [-1.0 + math.log(0.5), -1.0, -1.0]], requires_grad=True)
    loss, metrics = algorithm.token_loss(live, sequences)
    assert loss.item() == pytest.approx(-0.5 * 1.2 + 0.5 * (0.8 + 1.0 + 1.0))
    assert metrics["ratio"].tolist() == pytest.approx([1.5, 0.5, 1.0, 1.0])
    assert metrics["clipped"].tolist() == [1.0, 1.0, 0.0, 0.0]
    estimates = [1.5 - 1 - math.log(1.5), 0.5 - 1 - math.log(0.5), 0.0, 0.0]
    assert metrics["kl_to_drawing"].tolist() == pytest.approx(estimates, abs=1e-6)


def test_a_hand_without_sequences_adds_nothing() -> None:
    rollouts = Rollouts([[2]], _draw([[1.0, 0.0]]))
    algorithm = build_reinforce(_config(updates=2, steps=2, kl_in="loss"))
    assert isinstance(algorithm, TokenReinforce)
    logprobs = torch.tensor([[-3.0]], requires_grad=True)
    loss, metrics = algorithm.token_loss(logprobs, [rollouts.blank()])
    loss.backward()
    assert loss.item() == 0.0 and logprobs.grad is not None and logprobs.grad.item() == 0.0 and metrics == {}


def test_a_rollout_is_cut_prompt_by_prompt_for_its_updates() -> None:
    rollouts = Rollouts([[2], [3], [4], [5]], _draw([[float(i), 0.0] for i in range(4)], list(range(1, 9))))
    first, second = rollouts.parts(2)
    assert second.prompts == [[4], [5]] and second.policy.learnt_reward_PN.tolist() == [[2.0, 0.0], [3.0, 0.0]]
    assert [len(ids) for ids in second.policy.ids] == [5, 6, 7, 8]
    assert second.policy.tokens is not None and [len(each) for each in second.policy.tokens] == [5, 6, 7, 8]
    joined = Draw.joined([first.policy, second.policy])
    assert joined.ids == rollouts.policy.ids and torch.equal(joined.learnt_reward_PN, rollouts.policy.learnt_reward_PN)


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"kl_estimator": "k3"}, ["kl_estimator k3", "`kl_in: loss`", "kl_in is reward"]),
        ({"kl_in": "loss", "kl_estimator": "k1"}, ["kl_estimator k1", "`kl_in: loss`", "k2 or k3"]),
        ({"scale": "std"}, ["scale std", "KL in the reward", "`kl_in: loss`", "`kl: 0`"]),
        ({"updates": 4, "steps": 6}, ["updates 4", "steps 6"]),
        ({"clip": [0.0, 0.2]}, ["clip", "[0, 0.2]", "[low, high]", "above 0"]),
        ({"unfinished_penalty": -1}, ["unfinished_penalty", "greater than or equal to 0"]),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_a_sentence(fields: dict[str, Any], facts: list[str]) -> None:
    with raises_facts(ValidationError, *facts):
        _config(**fields)
