from collections.abc import Callable
from typing import Any

import pytest

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.compose import Rewards, open_rewards
from gemsmith.rl.rewards.config import CodeReward
from gemsmith.sandboxes.code.backends.backend import SandboxUnavailableError
from tests.messages import assert_facts, raises_facts

DOUBLE = {"function": "f", "calls": [[[1], 2], [[5], 10], [[0], 0], [[2], 4]]}
RIGHT = "```python\ndef f(x):\n    return 2 * x\n```"
SQUARE = "def f(x): return x * x"  # right for 0 and for 2
HUMANEVAL = {
    "prompt": "def double(x):\n    '''Twice x.'''\n",
    "entry_point": "double",
    "test": "def check(candidate):\n    assert candidate(3) == 6\n",
}
MBPP = {"test_list": ["assert f(1) == 2", "assert f(2) == 4"]}
APPS = {"input_output": '{"inputs": ["3"], "outputs": ["6"]}'}


@pytest.fixture
def with_code(stage: Stage) -> Callable[..., Stage]:
    """Return a function that adds a code reward named `solved` to the stage."""

    def adder(**config: Any) -> Stage:
        stage.rewards = {"solved": CodeReward(kind="code", **config)}
        return stage

    return adder


def each(rewards: Rewards, completions: list[str], columns: dict[str, list[Any]]) -> list[float | None]:
    return rewards.score(["p"] * len(completions), completions, columns).each["solved"]


def test_passing_is_one_failing_is_zero_and_a_row_without_tests_is_none(with_code: Callable[..., Stage]):
    completions = [RIGHT, SQUARE, "def f(x) 2", "", RIGHT, "def f(x):\n    import os\n    os._exit(0)\n"]
    with open_rewards(["solved"], with_code()) as rewards:
        found = each(rewards, completions, {"tests": [DOUBLE] * 4 + [None, DOUBLE]})
    assert found == [1.0, 0.0, 0.0, 0.0, None, 0.0]
    assert rewards.faults == {"solved": 0}


def test_a_completion_that_was_cut_off_is_wrong(with_code: Callable[..., Stage]):
    with open_rewards(["solved"], with_code(partial=True)) as rewards:
        columns = {"tests": [DOUBLE, DOUBLE], "finished": [False, True]}
        assert each(rewards, [RIGHT, RIGHT], columns) == [0.0, 1.0]


def test_partial_gives_the_share_of_cases(with_code: Callable[..., Stage]):
    ending = "import os\ndef f(x): return 2 * x if x else os._exit(0)"  # the two cases before count
    completions = [RIGHT, SQUARE, ending, "def f(x): return None", ""]
    with open_rewards(["solved"], with_code(partial=True)) as rewards:
        assert each(rewards, completions, {"tests": [DOUBLE] * 5}) == [1.0, 0.5, 0.5, 0.0, 0.0]
        assert each(rewards, ["print(1)"], {"tests": [{"stdio": [["", "1"], ["", "2"]]}]}) == [0.5]
        assert each(rewards, [RIGHT], {"tests": [{"test": "assert f(f(1)) == 4"}]}) == [1.0]


def test_the_columns_of_published_data_sets_are_told_apart_row_by_row(with_code: Callable[..., Stage]):
    rows = [HUMANEVAL, MBPP, APPS, {"tests": DOUBLE}]
    columns = {name: [row.get(name) for row in rows] for row in rows for name in row}
    completions = ["    return x + x\n", "def f(x): return 2 * x", "print(2 * int(input()))", SQUARE]
    with open_rewards(["solved"], with_code()) as rewards:
        assert each(rewards, completions, columns) == [1.0, 1.0, 1.0, 0.0]
    with open_rewards(["solved"], with_code(format="mbpp")) as rewards:
        assert each(rewards, completions, columns) == [None, 1.0, None, None]


def test_tests_may_stand_in_another_column_as_text(with_code: Callable[..., Stage]):
    with open_rewards(["solved"], with_code(tests="checks", format="tests")) as rewards:
        assert each(rewards, [RIGHT], {"checks": ['{"function": "f", "calls": [[[3], 6]]}']}) == [1.0]


def test_data_without_any_tests_is_refused(with_code: Callable[..., Stage]):
    with open_rewards(["solved"], with_code()) as rewards, pytest.raises(UserError) as caught:
        each(rewards, [RIGHT, RIGHT], {"tests": [None, ""], "level": [1, 2]})
    assert_facts(caught.value, "reward solved (code)", "no tests", "level, tests", "`columns`", "`format`")


@pytest.mark.parametrize(
    ("tests", "facts"),
    [
        ({"calls": DOUBLE["calls"]}, ["`function`", "text"]),
        ("not json", ["`tests`", "JSON"]),
        ({"script": "assert f(1) == 2"}, ["allow_forgeable: true"]),
    ],
)
def test_tests_that_cannot_be_used_name_the_sample(with_code: Callable[..., Stage], tests: Any, facts: list[str]):
    with open_rewards(["solved"], with_code()) as rewards, pytest.raises(UserError) as caught:
        each(rewards, [RIGHT, "other"], {"tests": [DOUBLE, tests]})
    assert_facts(caught.value, "reward solved (code)", "sample 1 (prompt 'p', completion 'other')", *facts)


def test_a_forgeable_test_counts_where_the_recipe_allows_it(with_code: Callable[..., Stage]):
    tests = {"script": "assert f(1) == 2"}
    with open_rewards(["solved"], with_code(allow_forgeable=True)) as rewards:
        assert each(rewards, [RIGHT, "def f(x): return 3"], {"tests": [tests, tests]}) == [1.0, 0.0]


def test_a_late_batch_ends_the_run_and_names_what_it_waited_for(with_code: Callable[..., Stage]):
    completions = [f"def f(x):\n    while True: pass  # {number}" for number in range(30)]
    with open_rewards(["solved"], with_code(time_limit=1.0)) as rewards, pytest.raises(RunError) as caught:
        each(rewards, completions, {"tests": [DOUBLE] * 30})
    for word in ("reward solved (code)", "time_limit of 1 s", "programs", "sample", "while True"):
        assert word in str(caught.value)


def test_limits_are_the_recipes(with_code: Callable[..., Stage]):
    hungry = "def f(x):\n    a = bytearray(200 << 20)\n    return 2 * x"
    with open_rewards(["solved"], with_code(memory=128)) as rewards:
        assert each(rewards, [hungry], {"tests": [DOUBLE]}) == [0.0]
    with open_rewards(["solved"], with_code()) as rewards:
        assert each(rewards, [hungry], {"tests": [DOUBLE]}) == [1.0]


def test_a_sandbox_that_is_not_there_is_an_error_when_the_stage_opens_its_rewards(
    with_code: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("GEMSMITH_ALLOW_UNSAFE_CODE", raising=False)
    with raises_facts(SandboxUnavailableError, "GEMSMITH_ALLOW_UNSAFE_CODE=1"):
        open_rewards(["solved"], with_code(backend="unsafe"))


def test_a_service_that_does_not_answer_is_no_silent_zero(with_code: Callable[..., Stage]):
    stage = with_code(backend="http", url="http://127.0.0.1:9")
    with open_rewards(["solved"], stage) as rewards:
        with raises_facts(RunError, "reward solved (code)", "any of 2 completions"):
            each(rewards, ["print(1)", "print(2)"], {"tests": [{"stdio": [["", "1"]]}] * 2})
        assert rewards.faults == {"solved": 2}
