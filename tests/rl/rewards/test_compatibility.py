"""Checks of gates, and of rows that no reward scores."""

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.curation.example import Example
from gemsmith.rl.rewards.compatibility import check_gates, check_routes
from gemsmith.rl.rewards.config import RewardConfig
from tests.messages import assert_facts, raises_facts


def terms(**gates: str | None) -> dict[str, RewardConfig]:
    return {name: RewardConfig(gate=gate) for name, gate in gates.items()}


@pytest.mark.parametrize(
    ("gates", "facts"),
    [
        ({"a": None, "b": "c"}, ["rewards.b.gate", 'found "c"', "learns from: a"]),
        ({"a": "a"}, ["rewards.a.gate", "cycle, a -> a;"]),
        ({"x": "a", "a": "b", "b": "a"}, ["rewards.a.gate", "cycle, a -> b -> a;"]),
    ],
)
def test_a_gate_that_is_not_there_or_leads_back_is_refused(gates: dict[str, str | None], facts: list[str]) -> None:
    with raises_facts(UserError, "stage rl", *facts):
        check_gates(terms(**gates), "rl")


def test_gates_in_a_chain_are_fine() -> None:
    check_gates(terms(c="b", a=None, b="a"), "rl")


def test_a_row_without_a_reward_names_its_task_and_those_of_the_rewards() -> None:
    routed = {"sums": RewardConfig(tasks=["math", "algebra"]), "tests": RewardConfig(tasks=["code"])}
    rows = [Example("p", task="code"), Example("q", task="chat", where="a.jsonl:2")]
    with pytest.raises(UserError) as caught:
        check_routes(routed, rows, "rl", "rows")
    assert_facts(
        caught.value,
        "stage rl",
        "data.rows",
        'task "chat"',
        "(a.jsonl:2)",
        "sums scores math, algebra; tests scores code",
    )
    with raises_facts(UserError, "data.rows", "without a task", "no reward"):
        check_routes(routed, [Example("p")], "rl", "rows")
    check_routes({**routed, "any": RewardConfig()}, [*rows, Example("p")], "rl", "rows")
