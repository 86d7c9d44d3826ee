from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.compose import open_rewards
from gemsmith.rl.rewards.config import InstructionsReward
from tests.messages import raises_facts

IDS = ["punctuation:no_comma", "startend:quotation"]
COLUMNS = {"instruction_id_list": [IDS, IDS, IDS, None, []], "kwargs": [[{}, {}], [None, {}], [{}, {}], None, []]}
COMPLETIONS = ['"a b"', "a b", "a, b", "x", "y"]


def scores(stage: Stage, completions: list[str] = COMPLETIONS, columns=COLUMNS, **config: object):
    stage.rewards = {"it": InstructionsReward(kind="instructions", **config)}  # type: ignore[arg-type]
    with open_rewards(["it"], stage) as rewards:
        return rewards.score(["p"] * len(completions), completions, columns).each["it"]


def test_the_reward_is_the_share_of_instructions_that_are_followed_and_none_where_there_are_none(stage: Stage):
    assert scores(stage) == [1.0, 0.5, 0.0, None, None]


def test_all_or_nothing_is_a_choice(stage: Stage):
    assert scores(stage, score="all") == [1.0, 0.0, 0.0, None, None]


def test_loose_forgives_a_preface(stage: Stage):
    columns = {"ids": [IDS], "their": [[{}, {}]]}
    named = {"instructions": "ids", "kwargs": "their"}
    assert scores(stage, ['Yes, sure:\n"a"'], columns, **named) == [0.0]
    assert scores(stage, ['Yes, sure:\n"a"'], columns, strict=False, **named) == [1.0]


def test_a_fault_in_the_data_names_reward_sample_instruction_and_field(stage: Stage):
    columns = {"instruction_id_list": [["keywords:existence"]], "kwargs": [[{"keywords": 3}]]}
    with raises_facts(UserError, "reward it (instructions)", "sample 0", "keywords:existence", "keywords"):
        scores(stage, ["x"], columns)


def test_data_without_the_columns_or_without_any_instruction_is_refused(stage: Stage):
    with raises_facts(UserError, "column 'kwargs'", "found instruction_id_list", "`columns`"):
        scores(stage, ["x"], {"instruction_id_list": [IDS]})
    with raises_facts(UserError, "no instructions", "column 'instruction_id_list'", "empty"):
        scores(stage, ["x"], {"instruction_id_list": [None], "kwargs": [None]})


def test_a_late_batch_ends_the_run_and_names_the_sample(stage: Stage):
    with raises_facts(RunError, "reward it (instructions)", "time_limit of 1e-09 s", "sample 0"):
        scores(stage, time_limit=1e-9)
