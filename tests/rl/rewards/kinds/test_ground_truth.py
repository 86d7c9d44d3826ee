import sys

import pytest

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.compose import open_rewards
from gemsmith.rl.rewards.config import MathReward
from tests.messages import raises_facts


def test_right_is_one_wrong_is_zero_and_a_row_without_an_answer_is_none(stage: Stage):
    answers = ["... #### 72", "72", None, r"\frac{1}{2}", 8]
    completions = ["The answer is 72.", "The answer is 71.", "72", r"\boxed{0.5}", "8"]
    with open_rewards(["correct"], stage) as rewards:
        table = rewards.score(["p"] * 5, completions, {"answer": answers})
    assert table.each["correct"] == [1.0, 0.0, None, 1.0, 1.0]
    assert rewards.faults == {"correct": 0}


def test_a_completion_that_was_cut_off_is_wrong(stage: Stage):
    columns = {"answer": ["72", "72", None], "finished": [True, False, False]}
    with open_rewards(["correct"], stage) as rewards:
        table = rewards.score(["p"] * 3, ["The answer is 72."] * 3, columns)
    assert table.each["correct"] == [1.0, 0.0, None]


def test_the_truth_may_stand_in_another_column(stage: Stage):
    stage.rewards = {"correct": MathReward(kind="math", answer="gold")}
    with open_rewards(["correct"], stage) as rewards:
        assert rewards.score(["p"], ["7"], {"answer": ["8"], "gold": ["7"]}).total == [1.0]
        with raises_facts(UserError, "reward correct (math)", "column 'gold'", "found answer", "`answer`"):
            rewards.score(["p"], ["7"], {"answer": ["8"]})


def test_data_without_any_ground_truth_is_refused(stage: Stage):
    with (
        open_rewards(["correct"], stage) as rewards,
        raises_facts(UserError, "no ground truth", "column 'answer'", "map `answer`"),
    ):
        rewards.score(["p", "q"], ["7", "8"], {"answer": [None, ""]})


def test_a_late_batch_ends_the_run_and_names_what_it_waited_for(stage: Stage):
    stage.rewards = {"correct": MathReward(kind="math", time_limit=1.0)}
    hostile = [rf"\boxed{{\sum_{{k=1}}^{{{10**8 + number}}} \sin(k)/k}}" for number in range(40)]
    with open_rewards(["correct"], stage) as rewards, pytest.raises(RunError) as caught:
        rewards.score([f"prompt {i}" for i in range(40)], hostile, {"answer": [r"\sqrt{7}"] * 40})
    for word in ("reward correct (math)", "time_limit of 1 s", "sample", "prompt", "sin(k)/k}"):
        assert word in str(caught.value)


def test_a_verifier_that_cannot_run_is_no_silent_zero(stage: Stage, monkeypatch: pytest.MonkeyPatch, listener):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with open_rewards(["correct"], stage) as rewards:
        table = rewards.score(["p", "q"], ["7", r"\boxed{x+x}"], {"answer": ["7", "2x"]})
        assert table.each["correct"] == [1.0, None]
        assert rewards.faults == {"correct": 1}
        assert "1 of 2 completions could not be verified" in listener.said[0]
        with raises_facts(RunError, "reward correct (math)", "any of 1 completions", "/nowhere/python"):
            rewards.score(["q"], [r"\boxed{x+x}"], {"answer": ["2x"]})
