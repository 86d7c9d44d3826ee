import itertools
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from benchmarks.fidelity.toys.best_of_n_law import best_of_n_logprob, jeffreys
from gemsmith.contracts.errors import UserError
from gemsmith.rl.algorithms.algorithm import Draw, Rollouts, leave_one_out, tie_rate
from gemsmith.rl.algorithms.bond import JBond, backward_return, build_bond, jbond_reward, policy_weights, standing
from gemsmith.rl.algorithms.bond_config import BondAlgorithm
from gemsmith.rl.stages.warp.config import WarpStage
from tests.messages import assert_facts, raises_facts


@pytest.mark.parametrize("quantile", [0.1, 0.25, 0.5, 0.75, 0.9])
def test_jbond_reward_has_mean_log16_times_the_squared_chance_of_losing(quantile: float) -> None:
    torch.manual_seed(0)
    anchors_P2 = torch.rand(400_000, 2)
    mean = jbond_reward(torch.full((400_000,), quantile), anchors_P2).mean().item()
    assert mean == pytest.approx(-math.log(16) * (1 - quantile) ** 2, abs=0.01)


def test_a_tie_with_an_anchor_sample_is_not_worse() -> None:
    reward_P = torch.tensor([1.0, 0.0, 0.0])
    anchors_P2 = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 2.0]])
    assert jbond_reward(reward_P, anchors_P2).tolist() == pytest.approx([0.0, 0.0, -math.log(16)])


def test_jbond_is_blind_to_monotone_transforms_of_the_reward() -> None:
    torch.manual_seed(0)
    reward_P, anchors_P2 = torch.randn(1000), torch.randn(1000, 2)
    assert torch.equal(jbond_reward(reward_P, anchors_P2), jbond_reward((5 * reward_P).exp(), (5 * anchors_P2).exp()))


def test_the_baseline_is_the_mean_of_the_others() -> None:
    assert leave_one_out(torch.tensor([1.0, 2.0, 6.0])).tolist() == [1 - (2 + 6) / 2, 2 - (1 + 6) / 2, 6 - (1 + 2) / 2]


def test_the_regulariser_descends_the_kl_to_the_anchor() -> None:
    """Erratum: ascending sum(weight * log pi) with gamma > 0 must lower KL(pi || anchor), by exact enumeration."""
    torch.manual_seed(0)
    logits_V = torch.randn(6, dtype=torch.float64, requires_grad=True)
    anchor_V = torch.randn(6, dtype=torch.float64).log_softmax(0)
    logprob_V = logits_V.log_softmax(0)
    kl = (logprob_V.exp() * (logprob_V - anchor_V)).sum()
    (kl_gradient,) = torch.autograd.grad(kl, logits_V, retain_graph=True)
    weights_V = policy_weights(torch.zeros(6, dtype=torch.float64), (logprob_V - anchor_V).detach(), 0.5, 1.0)
    objective = (logprob_V.exp().detach() * weights_V * logprob_V).sum()
    (ascent,) = torch.autograd.grad(objective, logits_V)
    assert torch.allclose(ascent, -kl_gradient, atol=1e-10)


def test_the_backward_term_is_the_policy_gradient_of_the_exact_objective() -> None:
    """E_pi[grad log pi * R] with R = r_J - log(pi / anchor) is minus the gradient of KL(pi || anchor * exp(r_J))."""
    torch.manual_seed(1)
    logits_V = torch.randn(5, dtype=torch.float64, requires_grad=True)
    anchor_V, reward_V = torch.randn(5, dtype=torch.float64).log_softmax(0), -torch.rand(5, dtype=torch.float64)
    logprob_V = logits_V.log_softmax(0)
    (expected,) = torch.autograd.grad(
        -(logprob_V.exp() * (logprob_V - anchor_V - reward_V)).sum(), logits_V, retain_graph=True
    )
    return_V = backward_return(reward_V, logprob_V, anchor_V).detach()
    (got,) = torch.autograd.grad((logprob_V.exp().detach() * return_V * logprob_V).sum(), logits_V)
    assert torch.allclose(got, expected, atol=1e-10)


def stated(**fields: Any) -> BondAlgorithm:
    given = {"kind": "bond", "data": "d", "rewards": ["r"], "steps": 1, "batch": 2, "learning_rate": 0.1}
    return BondAlgorithm.model_validate(given | fields)


def _rollouts() -> Rollouts:
    prompts = [[2, 7], [2, 8]]
    policy = Draw(
        ids=[[10], [11]],
        learnt_reward_PN=torch.tensor([[0.0], [1.0]]),
        logprob_PN=torch.tensor([[-1.0], [-2.0]]),
        anchor_logprob_PN=torch.tensor([[-1.5], [-1.0]]),
    )
    anchor = Draw(ids=[[20], [21], [22], [23]], learnt_reward_PN=torch.tensor([[0.2, 0.9], [0.5, 0.5]]))
    return Rollouts(prompts, policy, anchor)


def test_weights_of_one_step_are_those_of_algorithm_2() -> None:
    sequences, metrics = JBond(stated(beta=0.25, gamma=0.5)).weigh(_rollouts())
    got = {(s.prompt[1], s.completion[0]): s.weight for s in sequences}
    first, second = -math.log(16) - (-1.0 + 1.5), 0.0 - (-2.0 + 1.0)
    assert got == {
        (7, 10): pytest.approx((0.25 * (first - second) - 0.5 * (-1.0 + 1.5)) / 2, rel=1e-5),
        (8, 11): pytest.approx((0.25 * (second - first) - 0.5 * (-2.0 + 1.0)) / 2, rel=1e-5),
        (7, 21): pytest.approx(0.75 / 2),  # the better of the anchor's two
        (8, 22): pytest.approx(0.75 / 2),  # a tie: the sample that came first
    }
    assert metrics["fraction_worse"] == 0.5
    assert metrics["return/quantile"] == metrics["jbond_reward"] == pytest.approx(-math.log(16) / 2)
    assert metrics["return/quantile_std"] == pytest.approx(math.log(16) / 2)
    assert metrics["return/log_ratio"] == pytest.approx((-0.5 + 1.0) / 2) == -metrics["kl_to_anchor"]
    assert metrics["return/log_ratio_std"] == pytest.approx(0.75)


def test_tie_rate_counts_pairs_of_one_prompt() -> None:
    assert tie_rate(torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]])) == pytest.approx((1 + 0) / (3 + 3))


def test_weights_of_a_bond_step_are_counted_among_k_and_imitate_the_best_of_n() -> None:
    policy = Draw(
        ids=[[10], [11]],
        learnt_reward_PN=torch.tensor([[2.0], [0.0]]),
        logprob_PN=torch.tensor([[-1.0], [-2.0]]),
        anchor_logprob_PN=torch.tensor([[-1.5], [-1.0]]),
    )
    anchor = Draw(
        [[i] for i in range(20, 28)], learnt_reward_PN=torch.tensor([[1.0, 0.0, 2.0, 3.0], [5.0, 6.0, 7.0, 8.0]])
    )
    algorithm = build_bond(stated(form="bond", n=3, quantile_samples=4, beta=0.25, gamma=0.5))
    sequences, metrics = algorithm.weigh(Rollouts([[2, 7], [2, 8]], policy, anchor))
    # Prompt 7: 3 of 4 are not better and 2 of these are worse, so B = 1 + 2/3 + 4/9. Prompt 8: all 4 are better, B = 3.
    scaled = [2 * math.log(3.5 / 4.5) + math.log(19 / 9), 2 * math.log(0.5 / 4.5) + math.log(3)]
    first, second = scaled[0] - 0.5, scaled[1] + 1.0
    assert {(s.prompt[1], s.completion[0]): s.weight for s in sequences} == {
        (7, 10): pytest.approx((0.25 * (first - second) - 0.5 * 0.5) / 2, rel=1e-5),
        (8, 11): pytest.approx((0.25 * (second - first) + 0.5 * 1.0) / 2, rel=1e-5),
        (7, 22): pytest.approx(0.75 / 2),  # the best of the first three; the fourth serves the quantile only
        (8, 26): pytest.approx(0.75 / 2),
    }
    assert metrics["bond_reward"] == pytest.approx(sum(scaled) / 2 / 2, rel=1e-5)
    assert metrics["log_quantile"] == pytest.approx((math.log(3.5 / 4.5) + math.log(0.5 / 4.5)) / 2, rel=1e-5)
    assert metrics["quantile"] == pytest.approx((3 / 4 + 0) / 2) and metrics["fraction_worse"] == 0.5
    assert metrics["win_over_best"] == (0.5 + 0) / 2  # a tie with the best of three, 2.0, and worse than 7.0


ANCHOR = [0, 0, 1, 2]  # equally probable samples of three outputs: 1/2, 1/4, 1/4
POLICY = [0, 1, 2]  # each a third


@pytest.mark.parametrize("reward_V", [[0.0, 1.0, 2.0], [1.0, 0.0, 1.0]])
@pytest.mark.parametrize(("n", "beta"), [(2, 0.5), (3, 0.25), (3, 0.0)])
def test_the_expected_step_is_the_gradient_of_the_jeffreys_divergence_to_best_of_n(
    reward_V: list[float], n: int, beta: float
) -> None:
    """Build one prompt per possible outcome: each n-tuple of anchor samples with each output of the policy.

    The other draws of the anchor are its law a hundred times over, so that its quantiles are known to 1 / 800.
    """
    reward = torch.tensor(reward_V)
    draws = list(itertools.product(POLICY, itertools.product(ANCHOR, repeat=n)))
    anchor_ids = [[*tuple_n, *ANCHOR * 100] for _, tuple_n in draws]
    counts = torch.tensor(ANCHOR).bincount()
    anchor_V = (counts / counts.sum()).log()
    logits_V = torch.zeros(3, requires_grad=True)
    logprob_V = logits_V.log_softmax(0)
    own = torch.tensor([[y] for y, _ in draws])
    policy = Draw([[y] for y, _ in draws], logprob_V.detach()[own], anchor_V[own], learnt_reward_PN=reward[own])
    anchor = Draw([[y] for ids in anchor_ids for y in ids], learnt_reward_PN=reward[torch.tensor(anchor_ids)])
    algorithm = build_bond(stated(form="bond", n=n, quantile_samples=400 + n, beta=beta))
    sequences, _ = algorithm.weigh(Rollouts([[0]] * len(draws), policy, anchor))
    objective = sum(s.weight * logprob_V[s.completion[0]] for s in sequences)
    (got,) = torch.autograd.grad(objective, logits_V, retain_graph=True)
    target_V = best_of_n_logprob(anchor_V.double(), reward.double(), n)
    forward, backward = (jeffreys(logprob_V.double(), target_V, beta=weight) for weight in (0.0, 1.0))
    others = len(draws) / (len(draws) - 1)  # the leave-one-out baseline scales centred returns by this factor
    (expected,) = torch.autograd.grad((1 - beta) * forward + beta * others * backward, logits_V)
    assert torch.allclose(got, -expected.to(got.dtype), atol=1.5e-3)
    assert expected.abs().max() > 0.05


def test_the_draws_that_are_not_learnt_from_are_not_drawn() -> None:
    assert JBond(stated()).draws == {"policy": 1, "anchor": 2}
    assert build_bond(stated(form="bond", n=4)).draws == {"policy": 1, "anchor": 16}
    assert build_bond(stated(form="bond", n=4, quantile_samples=2)).draws == {"policy": 1, "anchor": 4}
    assert build_bond(stated(form="bond", n=4, quantile="classifier")).draws == {"policy": 1, "anchor": 4}
    supervised = build_bond(stated(form="bond", n=4, beta=0))
    assert supervised.draws == {"policy": 1, "anchor": 4}  # the policy's sample is for the metrics


def test_beta_0_learns_from_the_anchors_best_alone() -> None:
    sequences, _ = JBond(stated(beta=0)).weigh(_rollouts())
    assert [(s.completion, s.weight) for s in sequences] == [([21], 0.5), ([22], 0.5)]


def test_one_prompt_has_no_baseline() -> None:
    alone = Rollouts(
        [[2]],
        Draw([[1]], *[torch.zeros(1, 1)] * 2, learnt_reward_PN=torch.zeros(1, 1)),
        Draw([[1], [2]], learnt_reward_PN=torch.zeros(1, 2)),
    )
    with raises_facts(UserError, "baseline", "`batch`", 2):
        JBond(stated()).weigh(alone)
    assert len(JBond(stated(beta=0)).weigh(alone)[0]) == 1


def test_the_anchor_moves_as_it_is_told() -> None:
    paces = [{}, {"anchor_rate": 0.1}, {"anchor": "periodic"}, {"anchor": "periodic", "anchor_every": 7}]
    found = [(a.anchor_rate, a.anchor_every) for a in (build_bond(stated(**pace)) for pace in paces)]
    assert found == [(0.02, 1), (0.1, 1), (1.0, 50), (1.0, 7)]
    assert build_bond(stated(anchor="fixed")).anchor_rate == 0


def test_the_anchor_wins_over_its_best_of_n_once_in_n_plus_1_and_best_of_n_every_other_time() -> None:
    torch.manual_seed(0)
    levels_PN = torch.rand(100_000, 6).mul(5).floor()  # ties
    own = standing(levels_PN[:, 0], levels_PN[:, 1:4], 3)["win_over_best"]
    best = standing(levels_PN[:, 3:].amax(dim=1), levels_PN[:, :3], 3)["win_over_best"]
    assert best == pytest.approx(1 / 2, abs=0.005)
    above = [(4 - i) / 5 for i in range(5)]  # P(one sample is above level i)
    at_best = [((5 - a * 5) / 5) ** 3 - ((4 - a * 5) / 5) ** 3 for a in above]  # P(the best of three is at level i)
    assert own == pytest.approx(sum(p * (a + 0.5 / 5) for p, a in zip(at_best, above, strict=True)), abs=0.005)


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"n": 4}, ["form jbond", "n 4", "n 2", "`form: bond`"]),
        ({"quantile": "classifier"}, ["form jbond", "remove quantile", "`form: bond`"]),
        ({"quantile_samples": 8}, ["form jbond", "remove quantile_samples", "`form: bond`"]),
        ({"anchor": "fixed", "anchor_rate": 0.1}, ["anchor_rate", "`anchor: ema`", "anchor is fixed"]),
        ({"anchor_every": 9}, ["anchor_every", "`anchor: periodic`", "anchor is ema"]),
        (
            {"form": "bond", "quantile": "classifier", "quantile_samples": 8},
            ["quantile_samples", "`quantile: samples`", "quantile is classifier"],
        ),
        (
            {"form": "bond", "quantile_learning_rate": 1e-3},
            ["quantile_learning_rate", "`quantile: classifier`", "quantile is samples"],
        ),
        ({"form": "bond", "quantile": "classifier", "beta": 0}, ["beta 0", "Best-of-n", "remove quantile"]),
    ],
)
def test_fields_that_do_not_belong_together_are_refused(fields: dict[str, Any], facts: list[object]) -> None:
    with raises_facts(ValidationError, *facts):
        stated(**fields)


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"anchor": "periodic"}, ["warp", "remove `anchor: periodic`"]),
        ({"form": "bond", "quantile": "classifier"}, ["warp", "classifier", "`quantile: samples`"]),
    ],
)
def test_warp_keeps_its_own_anchor_and_takes_best_of_any_n(fields: dict[str, Any], facts: list[object]) -> None:
    with raises_facts(ValidationError, *facts):
        WarpStage(id="w", kind="warp", inner=stated(**fields))
    inner = WarpStage(id="w", kind="warp", inner=stated(form="bond", n=4, anchor_rate=0.05)).inner
    assert isinstance(inner, BondAlgorithm) and inner.n == 4


def test_what_was_resolved_can_be_read_again() -> None:
    for fields in ({}, {"anchor": "fixed"}, {"form": "bond", "n": 4, "quantile": "classifier", "anchor": "periodic"}):
        config = stated(**fields)
        assert BondAlgorithm.model_validate(config.model_dump()) == config


def test_several_processes_do_not_share_a_classifier() -> None:
    config = stated(form="bond", quantile="classifier")
    assert config.batch_fault(1) is None
    assert_facts(config.batch_fault(2), "`quantile: classifier`", "one process", "2 are running", "`quantile: samples`")
