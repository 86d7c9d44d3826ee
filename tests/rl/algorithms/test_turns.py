"""Advantages of the turns of an episode, by arithmetic and by enumeration."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from gemsmith.rl.algorithms.algorithm import Draw, Rollouts, Weighted
from gemsmith.rl.algorithms.reinforce import TokenReinforce, build_reinforce
from gemsmith.rl.algorithms.reinforce_config import ReinforceAlgorithm
from gemsmith.rl.algorithms.turns import Episodes, episode_tie_rate, penalised_turns, returns, turn_advantages
from tests.messages import raises_facts


def _config(**fields: Any) -> ReinforceAlgorithm:
    common = {"kind": "reinforce", "data": "d", "rewards": ["r"], "steps": 2, "batch": 1, "learning_rate": 0.1}
    return ReinforceAlgorithm(**{**common, "turns": 3, "kl": 0.0, **fields})


def _episodes(turns: list[tuple[int, int, int, float]], asked: int = 2, **fields: Any) -> Episodes:
    """Build episodes from (prompt, episode, turn, reward) rows; row i has the completion [i]."""
    prompt, episode, turn, reward = zip(*turns, strict=True)
    zero_R1 = torch.zeros(len(turns), 1)
    ids, reward_R1 = [[row] for row in range(len(turns))], torch.tensor(reward)[:, None]
    draw = Draw(ids, zero_R1, None, zero_R1, learnt_reward_PN=reward_R1, **fields)
    return Episodes(
        [[100 + row] for row in range(len(turns))],
        draw,
        prompt_R=torch.tensor(prompt),
        episode_R=torch.tensor(episode),
        turn_R=torch.tensor(turn),
        asked=asked,
        spare=Weighted([1], [2], 0.0),
    )


def test_a_turn_returns_what_it_and_the_turns_after_it_earn() -> None:
    reward_R, episode_R = torch.tensor([-0.2, 0.0, 1.0, -1.0, 0.0, -1.0]), torch.tensor([0, 0, 0, 1, 2, 2])
    assert returns(reward_R, episode_R).tolist() == pytest.approx([-0.2 + 0.0 + 1.0, 0.0 + 1.0, 1.0, -1.0, -1.0, -1.0])


def test_a_turn_is_held_against_the_same_turn_of_the_prompts_other_episodes() -> None:
    prompt_R, turn_R = torch.tensor([0, 0, 0, 0, 0, 1]), torch.tensor([0, 1, 0, 1, 0, 0])
    return_R = torch.tensor([0.8, 1.0, -1.0, -1.0, 1.0, 5.0])
    expected = [0.8 - (-1.0 + 1.0) / 2, 1.0 - -1.0, -1.0 - (0.8 + 1.0) / 2, -1.0 - 1.0, 1.0 - (0.8 - 1.0) / 2]
    alone = (
        5.0 - (0.8 - 1.0 + 1.0) / 3
    )  # the only episode of its prompt: its baseline is the other prompt's first turns
    assert turn_advantages(return_R, prompt_R, turn_R).tolist() == pytest.approx([*expected, alone])


def test_a_turn_that_no_other_episode_came_to_has_no_baseline() -> None:
    got = turn_advantages(torch.tensor([1.0, 1.0, 0.5]), torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1]))
    assert got.tolist() == [0.0, 0.0, 0.5]


def test_the_penalty_is_of_the_geometric_mean_so_that_length_costs_nothing() -> None:
    short, long = penalised_turns(torch.zeros(2), torch.tensor([2.0, 20.0]), torch.tensor([4.0, 40.0]), 0.05)
    assert short.item() == long.item() == pytest.approx(-0.05 * 2.0 / 4)


def test_episodes_of_a_prompt_tie_where_their_turns_earn_the_same_together() -> None:
    reward_R = torch.tensor([1.0, -0.2, 1.2, 0.5, 1.0, 1.0])  # totals: 1; -0.2 + 1.2 = 1; 0.5; 1; other prompt: 1
    episode_R, prompt_R = torch.tensor([0, 1, 1, 2, 3, 4]), torch.tensor([0, 0, 0, 0, 0, 1])
    assert episode_tie_rate(reward_R, episode_R, prompt_R) == pytest.approx(
        3 / 6
    )  # three of four episodes are equal: 3 of 6 pairs
    assert episode_tie_rate(torch.ones(2), torch.tensor([0, 1]), torch.tensor([0, 1])) is None


def test_weights_are_advantages_over_the_number_of_episodes() -> None:
    rollouts = _episodes(
        [(0, 0, 0, 0.0), (0, 0, 1, 1.0), (0, 1, 0, -0.2), (0, 1, 1, -1.0), (1, 2, 0, 1.0), (1, 3, 0, 1.0)]
    )
    sequences, metrics = build_reinforce(_config()).weigh(rollouts)
    first, second = 1.0 - -1.2, 1.0 - -1.0
    assert [s.weight for s in sequences] == pytest.approx([w / 4 for w in (first, second, -first, -second)])
    assert [(s.prompt, s.completion) for s in sequences] == [([100 + row], [row]) for row in range(4)]
    assert metrics["zero_advantage"] == pytest.approx(2 / 6)


def test_the_gradient_over_two_turns_is_unbiased() -> None:
    """Enumerate all pairs of two-turn episodes with their probabilities: the expected gradient is the exact one.

    A first turn is right (+1, the end), wrong (0, try again) or no program (-0.2, try again); a second one ends it.
    """
    torch.manual_seed(0)
    logits = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)  # rows: first turn; after wrong; after nothing
    logprob = logits.log_softmax(1)
    ends = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    episodes = [
        [(0, 0, 1.0)],
        *([(0, a, r), (a, b, ends[b].item())] for a, r in ((1, 0.0), (2, -0.2)) for b in range(3)),
    ]
    chance = [torch.stack([logprob[state, said] for state, said, _ in each]).sum().exp() for each in episodes]
    worth = [sum(reward for *_, reward in each) for each in episodes]
    (expected,) = torch.autograd.grad(sum(c * w for c, w in zip(chance, worth, strict=True)), logits, retain_graph=True)
    objective = torch.zeros((), dtype=torch.float64)
    for i, one in enumerate(episodes):
        for j, other in enumerate(episodes):
            rows = [(0, e, t, reward) for e, each in enumerate((one, other)) for t, (*_, reward) in enumerate(each)]
            sequences, _ = build_reinforce(_config(turns=2)).weigh(_episodes(rows, asked=1))
            said = [logprob[state, token] for each in (one, other) for state, token, _ in each]
            total = sum((s.weight * said[s.completion[0]] for s in sequences), torch.zeros((), dtype=torch.float64))
            objective = objective + (chance[i] * chance[j]).detach() * total
    (got,) = torch.autograd.grad(objective, logits)
    assert torch.allclose(got, expected, atol=1e-6)


def test_episodes_are_cut_prompt_by_prompt_and_a_part_without_any_teaches_nothing() -> None:
    tokens = [torch.zeros(1)] * 3
    rollouts = _episodes([(0, 0, 0, 0.0), (0, 0, 1, 1.0), (0, 1, 0, 1.0)], tokens=tokens, initial_tokens=tokens)
    first, second = rollouts.parts(2)
    assert first.policy.ids == [[0], [1], [2]] and second.policy.ids == [] and second.blank().weight == 0.0
    algorithm = build_reinforce(_config(updates=2))
    assert isinstance(algorithm, TokenReinforce)
    assert len(algorithm.weigh(first)[0]) == 1 and algorithm.weigh(second) == ([], {})
    assert isinstance(first, Episodes) and isinstance(second, Rollouts) and first.asked == 1


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"rewards": ["r", "s"]}, ["turns 3", "one reward", "kind code", "`rewards` has 2"]),
        ({"kl_in": "loss"}, ["`kl_in`", "one turn", "turns is 3"]),
        ({"scale": "std"}, ["`scale`", "one turn", "turns is 3"]),
        ({"baseline": "group_mean"}, ["`baseline`", "one turn", "turns is 3"]),
        ({"unfinished_penalty": 1}, ["`unfinished_penalty`", "one turn", "turns is 3"]),
        ({"control": ["s"]}, ["`control`", "one turn", "turns is 3"]),
    ],
)
def test_settings_that_turns_do_not_have_are_refused(fields: dict[str, Any], facts: list[str]) -> None:
    with raises_facts(ValidationError, *facts):
        _config(**fields)
