"""Rewards that do not fit one another, or leave a row without one."""

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.curation.example import Example
from gemsmith.rl.rewards.compatibility import check_gates, check_routes
from gemsmith.rl.rewards.config import RewardConfig


def terms(**gates: str | None) -> dict[str, RewardConfig]:
    return {name: RewardConfig(gate=gate) for name, gate in gates.items()}


@pytest.mark.parametrize(
    ("gates", "sentence"),
    [
        ({"a": None, "b": "c"}, r'rewards\.b\.gate: found "c", expected another reward that .* learns from: a$'),
        ({"a": "a"}, r"rewards\.a\.gate: found a cycle, a -> a; expected a chain of gates that ends"),
        ({"x": "a", "a": "b", "b": "a"}, r"rewards\.a\.gate: found a cycle, a -> b -> a;"),
    ],
)
def test_a_gate_that_is_not_there_or_leads_back_is_refused(gates: dict[str, str | None], sentence: str) -> None:
    with pytest.raises(UserError, match=f"^stage rl: {sentence}"):
        check_gates(terms(**gates), "rl")


def test_gates_in_a_chain_are_fine() -> None:
    check_gates(terms(c="b", a=None, b="a"), "rl")


def test_a_row_without_a_reward_names_its_task_and_those_of_the_rewards() -> None:
    routed = {"sums": RewardConfig(tasks=["math", "algebra"]), "tests": RewardConfig(tasks=["code"])}
    rows = [Example("p", task="code"), Example("q", task="chat", where="a.jsonl:2")]
    with pytest.raises(UserError) as caught:
        check_routes(routed, rows, "rl", "rows")
    assert str(caught.value).startswith(
        'stage rl: a row of data.rows of task "chat" (a.jsonl:2) has no reward: sums scores math, algebra; '
        "tests scores code. Name"
    )
    with pytest.raises(UserError, match=r"a row of data\.rows without a task has no reward"):
        check_routes(routed, [Example("p")], "rl", "rows")
    check_routes({**routed, "any": RewardConfig()}, [*rows, Example("p")], "rl", "rows")
