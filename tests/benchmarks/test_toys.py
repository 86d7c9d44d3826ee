"""The toy problems that claims are tried on, and the claims that are quick enough to be tried each time."""

import math
import random
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest
import torch

from benchmarks.fidelity import suite
from benchmarks.fidelity.curves import at, at_kl, mean_gap
from benchmarks.fidelity.figure import draw
from benchmarks.fidelity.registry import claims
from benchmarks.fidelity.toys.bandit import copy_of, jbond, make_bandit, reinforce, reward_and_kl, trace
from benchmarks.fidelity.toys.best_of_n import best_of_n, best_weights, log_quantile, win_rate
from benchmarks.fidelity.toys.best_of_n_law import best_of_n_logprob, jeffreys
from benchmarks.fidelity.toys.demonstrations import rows
from benchmarks.fidelity.toys.language import LONGEST
from benchmarks.fidelity.toys.sequences import distil, make_sequences
from benchmarks.fidelity.toys.warp import between, line, merged

WIDTHS = (6, 12, 8)


@pytest.mark.parametrize("name", ["B1", "B2", "B4", "W3"])
def test_a_quick_claim_comes_out_and_can_be_drawn(name: str, tmp_path: Path) -> None:
    (claim,) = claims([name])
    result = suite.run_claim(suite.planned(claim, True, tmp_path), lambda _: None)
    assert result.verdict is not None, result.error
    assert len(result.verdict.observed) == len(claim.seeds)
    assert result.verdict.holds in ({"holds", "holds in part"} if name == "B2" else {"holds"}), result.verdict.remark
    draw(claim, [trial.measured for trial in result.trials], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5_000


def test_a_sequences_probability_is_the_product_of_its_tokens() -> None:
    problem = make_sequences(0, prompts=2, length=3, vocabulary=4)
    logprob_PS = problem.logprobs(problem.reference_PLV)
    assert logprob_PS.exp().sum(-1).tolist() == pytest.approx([1.0, 1.0])
    row = problem.tokens_SL.tolist().index([3, 0, 2])
    token_LV = problem.reference_PLV[1].log_softmax(-1)
    assert logprob_PS[1, row].item() == pytest.approx((token_LV[0, 3] + token_LV[1, 0] + token_LV[2, 2]).item())


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_distilling_lowers_its_divergence(beta: float) -> None:
    problem = make_sequences(0, prompts=2, length=2, vocabulary=4)
    target_PS = best_of_n_logprob(problem.logprobs(problem.reference_PLV), problem.reward_PS, 4)
    seen = [jeffreys(logprob_PS, target_PS, beta).mean().item() for _, logprob_PS in distil(problem, 4, beta, 60, 0.05)]
    assert seen[-1] < 0.7 * seen[0]


def test_the_reference_is_at_no_distance_from_itself_and_both_algorithms_raise_the_reward() -> None:
    bandit = make_bandit(0, WIDTHS, prompts=64)
    before, divergence = reward_and_kl(bandit.reference, bandit)
    assert divergence == pytest.approx(0.0, abs=1e-9)
    for algorithm in (jbond(), reinforce(0.1), reinforce(0.1, "anchor")):
        last = trace(copy_of(bandit.reference), bandit, algorithm, 0, every=80, steps=80, batch=64, learning_rate=5e-3)[
            -1
        ]
        assert last[1] > before + 0.2 and last[2] > 0


def test_mean_reward_and_kl_are_sums_over_the_actions() -> None:
    bandit = make_bandit(0, WIDTHS, prompts=3)
    policy = make_bandit(1, WIDTHS, prompts=3).reference
    reward = kl = 0.0
    for number in range(3):
        here, there = (net(bandit.features_XF[number]).softmax(-1).tolist() for net in (policy, bandit.reference))
        reward += sum(p * r for p, r in zip(here, bandit.reward_XA[number].tolist(), strict=True)) / 3
        kl += sum(p * math.log(p / q) for p, q in zip(here, there, strict=True)) / 3
    assert reward_and_kl(policy, bandit) == pytest.approx((reward, kl), abs=1e-5)


def test_merges_and_lines_of_policies_are_those_of_their_weights() -> None:
    start, first, second = (make_bandit(seed, WIDTHS, prompts=4).reference for seed in range(3))
    by_lerp, _ = merged(start, [first, second], "lerp")
    by_slerp, angle = merged(start, [first, second])
    for here, a, b in zip(by_lerp.parameters(), first.parameters(), second.parameters(), strict=True):
        assert torch.allclose(here, (a + b) / 2, atol=1e-6)
    assert 30 < angle < 120
    assert any(not torch.allclose(a, b) for a, b in zip(by_lerp.parameters(), by_slerp.parameters(), strict=True))
    quarter = between(start, first, 0.25)
    for here, a, b in zip(quarter.parameters(), start.parameters(), first.parameters(), strict=True):
        assert torch.allclose(here, 0.75 * a + 0.25 * b, atol=1e-6)
    bandit = make_bandit(0, WIDTHS, prompts=4)
    ends = line(bandit, start, first, (0.0, 1.0))
    assert ends == [pytest.approx(reward_and_kl(policy, bandit)[::-1]) for policy in (start, first)]


def test_a_curve_is_read_between_its_points_and_nowhere_else() -> None:
    curve = [(0.0, 1.0), (2.0, 3.0), (1.0, 0.0)]
    assert at(curve, 0.5) == 0.5 and at(curve, 1.5) == 1.5 and at(curve, 2.0) == 3.0
    assert math.isnan(at(curve, 2.1))


def test_the_gap_of_two_curves_is_the_mean_over_what_both_reach() -> None:
    upper, lower = [(0.0, 0.0), (4.0, 4.0)], [(1.0, 0.5), (3.0, 2.5), (9.0, 0.0)]
    assert mean_gap(upper, [(1.0, 0.5), (3.0, 2.5)]) == pytest.approx(0.5)  # x against x - 1/2, from 1 to 3
    assert mean_gap(upper, [(0.0, 0.0), (2.0, 0.0)], low=1.0) == pytest.approx(1.5)  # x against 0, from 1 to 2
    assert mean_gap(lower, upper) == -mean_gap(upper, lower)
    assert math.isnan(mean_gap(upper, [(5.0, 0.0), (6.0, 0.0)]))


def test_best_of_n_of_draws_is_the_mean_over_every_choice_of_n() -> None:
    drawn = [3.0, 1.0, 2.0, 2.0]
    bests = [max(chosen) for chosen in combinations(drawn, 2)]
    weighted = zip(best_weights(4, 2), sorted(drawn), strict=True)
    assert sum(weight * value for weight, value in weighted) == pytest.approx(fmean(bests))  # (3 + 3 + 3 + 2 + 2 + 2)/6
    for reward in (0.0, 1.0, 2.0, 3.0, 4.0):
        won = fmean(1.0 if reward > best else 0.5 if reward == best else 0.0 for best in bests)
        assert win_rate(reward, drawn, 2) == pytest.approx(won)


def test_best_of_n_has_the_quantile_that_the_maximum_of_uniforms_has() -> None:
    draw = random.Random(0)
    for n in (2, 8):
        found = [best_of_n([draw.random() for _ in range(256)], n) for _ in range(100)]
        assert fmean(reward for reward, _ in found) == pytest.approx(n / (n + 1), abs=0.01)
        assert fmean(quantile for _, quantile in found) == pytest.approx(-1 / n, abs=0.02)  # E log U^(1/n)
    assert log_quantile(0.5, [0.1, 0.2, 0.9]) == pytest.approx(math.log(2.5 / 3.5))


def test_a_front_is_read_over_the_root_of_kl() -> None:
    root = [(0.0, 0.0), (1.0, 1.0), (4.0, 2.0), (9.0, 3.0)]  # reward = sqrt(KL)
    assert [at_kl(root, kl) for kl in (0.25, 2.25, 4.0)] == [0.5, 1.5, 2.0]
    assert math.isnan(at_kl(root, 10.0))


def test_demonstrations_of_the_toy_language_have_distinct_prompts_and_are_told_by_its_seed() -> None:
    found = list(rows(3, 50))
    assert found == list(rows(3, 50)) != list(rows(4, 50))
    assert len({row["prompt"] for row in found}) == 50
    assert all(4 <= len(row["completion"]) <= LONGEST for row in found)
