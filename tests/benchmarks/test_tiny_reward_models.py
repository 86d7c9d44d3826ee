"""Building blocks of the claims on WARM's tiny reward models: gold reward, pairs, accuracies and best of N."""

import itertools
from pathlib import Path

import pytest
import torch

from benchmarks.fidelity.claims.warm_labels import groups
from benchmarks.fidelity.toys.corrupted import Data, make_data
from benchmarks.fidelity.toys.gold import Gold
from benchmarks.fidelity.toys.reward_scores import Scorer, accuracies, best_of, best_of_n_kl, mean_of
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.text.chat import completion_text
from gemsmith.reward_models.pairs import Pair

SETTING = {"pairs": 8, "held_out": 4, "swapped": 0.25}


@pytest.fixture(scope="module")
def policy() -> Policy:
    return tiny_policy(seed=0)


def test_gold_is_the_sum_of_its_parts():
    gold = Gold(0)
    letters = (gold.letter["A"] + gold.letter["B"] + gold.letter["A"]) / 3
    pairs = (gold.pair["A", "B"] + gold.pair["B", "A"]) / 3
    expected = 3 * (letters + 0.5 * pairs) + 0.5 * 2 - 2 * (1 / 3) - (5 / 4) ** 2  # A and B kept; A again; 3 letters
    assert gold(["ABC"], ["ABA"]) == [pytest.approx(expected)]
    assert gold.of("ABC", "") == -4.0 - (8 / 4) ** 2
    assert Gold(1).letter != gold.letter


def test_a_quarter_of_the_training_labels_is_swapped_and_no_other(policy: Policy):
    data = make_data(policy, SETTING, seed=0)
    assert (len(data.train), len(data.held_out), len(data.shifted), len(data.swapped)) == (8, 4, 4, 2)
    gold = Gold(0)

    def right(pair: Pair) -> bool:
        chosen, rejected = (
            completion_text(policy.tokenizer, ids[pair.prompt_tokens :]) for ids in (pair.chosen_ids, pair.rejected_ids)
        )
        return gold.of(pair.prompt, chosen) >= gold.of(pair.prompt, rejected)

    assert {i for i, pair in enumerate(data.train) if not right(pair)} == data.swapped
    assert all(map(right, (*data.held_out, *data.shifted)))


def test_accuracies_are_told_apart_by_subset():
    pair = Pair("A", (1,), (2,))
    data = Data(train=[pair, pair, pair], swapped=frozenset({1}), held_out=[pair], shifted=[pair, pair])
    rewards = [1, 0, 1, 0, 0, 1, 1, 1, 1, 0, 0, 1]  # right, right (swapped), wrong; a tie; right, wrong
    expected = {"corrupt": 1.0, "clean": 0.5, "held out": 0.5, "shifted": 0.5}
    assert accuracies(rewards, data) == expected


def test_best_of_n_is_the_mean_over_all_draws():
    generator = torch.Generator().manual_seed(0)
    reward, gold = torch.rand(1, 6, generator=generator), torch.rand(1, 6, generator=generator)
    draws = [gold[0, max(three, key=lambda i: reward[0, i])].item() for three in itertools.combinations(range(6), 3)]
    assert best_of(3, reward, gold) == pytest.approx(sum(draws) / 20)
    assert best_of(1, reward, gold) == pytest.approx(gold.mean().item())
    assert best_of(6, reward, gold) == pytest.approx(gold[0, reward.argmax()].item())
    assert best_of_n_kl(1) == 0.0


def test_members_are_averaged_in_pairs_without_a_pair_and_together():
    assert groups(4) == {2: [(0, 1), (2, 3)], 4: [(0, 1, 2, 3)]}
    assert groups(6)[4] == [(2, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 3)]
    assert mean_of([[1.0, 2.0], [3.0, 6.0]]) == [2.0, 4.0]


def test_rewards_are_computed_once(tmp_path: Path):
    scorer, calls = Scorer(tmp_path, []), []
    for _ in range(2):
        assert scorer._kept("one", lambda: calls.append(1) or [0.5]) == [0.5]
    assert calls == [1]
