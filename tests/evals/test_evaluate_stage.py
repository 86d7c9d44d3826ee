import json
import re

import pytest
import torch

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import Mixture, ReasoningGymData
from gemsmith.curation.load import load_data
from gemsmith.evals.config import EvaluateStage
from gemsmith.evals.evaluate_stage import run
from gemsmith.evals.rows import load_rows
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.rl.rewards.config import MathReward, PythonReward
from tests.messages import assert_facts, missing_facts, raises_facts

pytestmark = pytest.mark.usefixtures("shallow_tiny")
REWARD = """
def brevity(prompts, completions, **columns):
    return [-float(len(completion)) for completion in completions]

def certain(prompts, completions, **columns):
    return [1.0 for _ in completions]

def whole(prompts, completions, finished):
    return [float(end) for end in finished]
"""
DATA = ReasoningGymData.model_validate(
    {"source": "reasoning_gym", "task": "chain_sum", "size": 60, "holdout": 0.3, "prompt": "{metadata[expression]} ="}
)


class Watcher:
    def __init__(self):
        self.progressed, self.said = [], []

    def progress(self, done, total, unit, shown):
        self.progressed.append((done, total, unit, dict(shown)))

    def say(self, message):
        self.said.append(message)


def config(**fields):
    given = {
        "id": "scores", "kind": "evaluate", "policies": ["start", "same"], "data": "sums", "prompts": 6, "samples": 3,
        "rewards": ["brief", "correct"], "sampling": {"max_tokens": 6, "batch": 9}, "shown": 2, **fields,
    }  # fmt: skip
    return EvaluateStage.model_validate(given)


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    """Folders of three policies: `start`, a copy of it, and one moved away from it."""
    folder = tmp_path_factory.mktemp("policies")
    policy = load_policy(PolicyConfig(model="tiny"), seed=3)
    for name in ("start", "same"):
        save_policy(policy, folder / name)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    save_policy(policy, folder / "moved")
    return {name: folder / name for name in ("start", "same", "moved")}


@pytest.fixture
def stage(tmp_path, policies):
    (tmp_path / "mine.py").write_text(REWARD)
    rewards = {
        "correct": MathReward(kind="math"),
        "brief": PythonReward(kind="python", target="mine.py:brevity", weight=0.1),
        "sure": PythonReward(kind="python", target="mine.py:certain"),
        "whole": PythonReward(kind="python", target="mine.py:whole"),
    }
    return Stage("scores", tmp_path / "stage", 0, tmp_path, policies, {"sums": DATA}, rewards, None, Watcher())


def scores(stage):
    return json.loads((stage.output / "scores.json").read_text())


def samples(stage):
    return [json.loads(line) for line in (stage.output / "samples.jsonl").read_text().splitlines()]


def test_a_random_policy_passes_nothing_and_has_no_kl_to_itself_or_its_copy(stage):
    run(config(), stage)
    found = scores(stage)
    assert (found["prompts"], found["samples"], found["initial"], found["passes"]) == (6, 3, "start", "correct")
    start, same = found["policies"]
    assert (start["stage"], same["stage"]) == ("start", "same")
    assert start["pass_rate"]["mean"] <= 1 / (6 * 3)
    assert start["kl"] == same["kl"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert {**same, "stage": "start"} == start  # equal weights, equal prompts, equal seed: equal answers


def test_scores_are_the_arithmetic_of_the_rows(stage):
    run(config(policies=["start", "moved"]), stage)
    rows = [json.loads(line) for line in (stage.folder / "rows" / "moved.jsonl").read_text().splitlines()]
    answers = [answer for row in rows for answer in row["sampled"]]
    found = scores(stage)["policies"][1]
    assert len(answers) == 6 * 3
    brief = [-len(answer["text"]) for answer in answers]
    assert found["rewards"]["brief"]["mean"] == pytest.approx(sum(brief) / 18)
    correct = [answer["rewards"]["correct"] for answer in answers]
    assert found["reward"]["mean"] == pytest.approx((0.1 * sum(brief) + sum(correct)) / 18)
    assert found["kl"]["mean"] == pytest.approx(sum(a["logprob"] - a["initial_logprob"] for a in answers) / 18)
    assert found["kl"]["low"] < found["kl"]["mean"] < found["kl"]["high"]
    assert found["length"]["mean"] == pytest.approx(sum(answer["tokens"] for answer in answers) / 18)
    assert all(answer["ended"] or answer["tokens"] == 6 for answer in answers)
    assert found["ended"] < 0.5  # random weights seldom choose one of two end tokens among 512
    assert found["ended"] == sum(answer["ended"] for answer in answers) / 18


def test_rewards_are_reported_as_they_come_whatever_shapes_learning_from_them(stage):
    fields = {"kind": "python", "target": "mine.py:brevity", "weight": 0.1}
    stage.rewards["brief"] = PythonReward(**fields, normalise="batch", clip=(0, 1), gate="elsewhere")
    run(config(policies=["start"]), stage)
    rows = [json.loads(line) for line in (stage.folder / "rows" / "start.jsonl").read_text().splitlines()]
    for answer in (answer for row in rows for answer in row["sampled"]):
        assert answer["rewards"]["brief"] == -len(answer["text"])
        assert answer["reward"] == pytest.approx(answer["rewards"]["correct"] - 0.1 * len(answer["text"]))


def test_a_held_out_row_without_a_reward_is_refused(stage):
    stage.rewards["correct"] = MathReward(kind="math", tasks=["algebra"])
    with pytest.raises(UserError, match="has no reward: correct scores algebra"):
        run(config(rewards=["correct"]), stage)


def test_a_policy_that_moved_has_a_positive_kl_with_either_policy_as_initial(stage):
    run(config(policies=["start", "moved"], sampling={"max_tokens": 12}), stage)
    first = scores(stage)["policies"]
    assert first[0]["kl"]["mean"] == 0.0 and first[1]["kl"]["low"] > 0.0
    other = Stage("scores", stage.folder / "other", 0, stage.root, stage.inputs, stage.data, stage.rewards)
    run(config(policies=["start"], initial="moved", sampling={"max_tokens": 12}), other)
    assert scores(other)["initial"] == "moved"
    assert scores(other)["policies"][0]["kl"]["low"] > 0.0


def test_only_held_out_prompts_are_used_and_samples_show_every_policy(stage):
    run(config(), stage)
    split = load_data(DATA, name="sums", seed=0, root=stage.root)
    rows = load_rows(stage.folder / "rows" / "start.jsonl", [], 3)
    assert rows is None  # kept answers to other prompts are not taken
    prompts = [json.loads(line)["prompt"] for line in (stage.folder / "rows" / "start.jsonl").read_text().splitlines()]
    assert len(prompts) == 6 and set(prompts) <= {example.prompt for example in split.test}
    assert not set(prompts) & {example.prompt for example in split.train}
    shown = samples(stage)
    assert [row["prompt"] for row in shown] == prompts[:2]
    answers = {example.prompt: example.answer for example in split.test}
    for row in shown:
        assert row["answer"] == answers[row["prompt"]]
        assert list(row["policies"]) == ["start", "same"]
        assert set(row["policies"]["start"]["greedy"]) == {"text", "pass"}
        assert [set(one) for one in row["policies"]["start"]["sampled"]] == [{"text", "pass", "reward"}] * 3


def test_the_subset_of_prompts_depends_on_the_seed(stage):
    run(config(policies=["start"]), stage)
    other = Stage("scores", stage.folder / "other", 1, stage.root, stage.inputs, stage.data, stage.rewards)
    run(config(policies=["start"]), other)
    assert [row["prompt"] for row in samples(stage)] != [row["prompt"] for row in samples(other)]


def test_an_interrupted_evaluation_keeps_finished_policies_and_gives_the_same_scores(stage, tmp_path):
    run(config(policies=["start", "moved"]), stage)
    expected, kept = (stage.output / "scores.json").read_bytes(), stage.folder / "rows" / "start.jsonl"
    (stage.folder / "rows" / "moved.jsonl").unlink()  # as if killed while `moved` was sampled
    (stage.folder / "rows" / "moved.jsonl.part").write_text('{"prompt": "half')
    (stage.output / "scores.json").unlink()
    before, lines = kept.stat().st_mtime_ns, len(stage.sink.progressed)
    run(config(policies=["start", "moved"]), stage)
    assert kept.stat().st_mtime_ns == before
    assert (stage.output / "scores.json").read_bytes() == expected
    assert [done for done, *_ in stage.sink.progressed[lines:]] == [24, 36, 48]  # 6 prompts x (3 + 1), then by batches
    assert any("start" in message for message in stage.sink.said)


def test_rows_of_a_finished_policy_are_really_used(stage):
    run(config(policies=["start"]), stage)
    path = stage.folder / "rows" / "start.jsonl"
    path.write_text(re.sub(r'"correct": \d\.\d', '"correct": 1.0', path.read_text()))
    run(config(policies=["start"]), stage)
    assert scores(stage)["policies"][0]["pass_rate"]["mean"] == 1.0


def test_progress_counts_completions_and_shows_the_pass_rate(stage):
    run(config(), stage)
    assert [(done, total, unit) for done, total, unit, _ in stage.sink.progressed] == [
        (done, 2 * 6 * (3 + 1), "completion") for done in (12, 24, 36, 48)
    ]
    assert all("pass_rate" in shown for *_, shown in stage.sink.progressed)


@pytest.mark.parametrize(
    ("sampling", "facts"),
    [({"temperature": 0.5}, ["KL", "temperature 0.5"]), ({"top_k": 5}, ["KL", "biased", "top_k"])],
)
def test_a_kl_of_another_distribution_than_the_policys_is_announced(stage, sampling, facts):
    run(config(policies=["start"], sampling={"max_tokens": 6, **sampling}), stage)
    assert any(not missing_facts(message, *facts) for message in stage.sink.said)


def test_another_reward_can_decide_what_passes(stage):
    run(config(policies=["start"], rewards=["correct", "sure"], passes="sure"), stage)
    assert scores(stage)["policies"][0]["greedy_pass_rate"]["mean"] == 1.0


def test_the_first_of_several_rewards_that_applies_decides_what_passes(stage):
    stage.rewards["sure"] = PythonReward(kind="python", target="mine.py:certain", tasks=["elsewhere"])
    rewards = {"rewards": ["sure", "correct"], "passes": ["sure", "correct"]}
    run(config(policies=["start"], **rewards), stage)
    assert scores(stage)["passes"] == "sure, correct"
    assert scores(stage)["policies"][0]["greedy_pass_rate"]["mean"] < 1.0  # `correct` decides: `sure` applies to no row
    stage.rewards["sure"] = PythonReward(kind="python", target="mine.py:certain", tasks=["chain_sum"])
    other = Stage("scores", stage.folder / "other", 0, stage.root, stage.inputs, stage.data, stage.rewards)
    run(config(policies=["start"], **rewards), other)
    assert scores(other)["policies"][0]["greedy_pass_rate"]["mean"] == 1.0


def test_a_mixture_is_scored_by_task(stage):
    pairs = DATA.model_copy(update={"task": "products", "options": {"max_digits": 1}})
    stage.data["both"] = Mixture(source="mixture", of={"sums": 1, "pairs": 1}, sections={"sums": DATA, "pairs": pairs})
    stage.rewards["correct"] = MathReward(kind="math", tasks=["chain_sum"])
    stage.rewards["sure"] = PythonReward(kind="python", target="mine.py:certain", tasks=["products"])
    expect = [{"better": "same", "than": "start", "task": "products", "apart": False}]
    fields = {"rewards": ["correct", "sure"], "passes": ["correct", "sure"], "prompts": 12, "expect": expect}
    run(config(data="both", **fields), stage)
    found = scores(stage)["policies"][0]
    by_task = found["by_task"]
    assert set(by_task) == {"chain_sum", "products"}
    assert sum(task["prompts"] for task in by_task.values()) == 12
    rate = by_task["products"]["pass_rate"]
    assert (rate["mean"], rate["high"]) == (1.0, 1.0) and 0.3 < rate["low"] < 1  # a handful of prompts
    whole = sum(task["pass_rate"]["mean"] * task["prompts"] for task in by_task.values()) / 12
    assert found["pass_rate"]["mean"] == pytest.approx(whole)
    assert_facts(stage.sink.said[-1], "same", "pass rate on products", "+0.0 points", "from start")
    other = Stage("scores", stage.folder / "other", 0, stage.root, stage.inputs, stage.data, stage.rewards)
    with pytest.raises(UserError, match=r'task "sums" .*chain_sum, products'):
        run(config(data="both", **{**fields, "expect": [{**expect[0], "task": "sums"}]}), other)


def test_a_reward_knows_which_completions_were_cut_off(stage):
    sampling = {"max_tokens": 150, "batch": 18}
    run(config(policies=["start"], rewards=["whole", "correct"], passes="whole", sampling=sampling), stage)
    found = scores(stage)["policies"][0]
    assert 0 < found["ended"] < 1
    assert found["pass_rate"]["mean"] == pytest.approx(found["ended"])


def test_an_expected_gain_that_is_missing_fails_after_the_scores_are_written(stage):
    with raises_facts(RunError, "same", "+0.0 points", "from start", "p = 1", "at least +20"):
        run(config(expect=[{"better": "same", "than": "start", "by": 20}]), stage)
    assert len(scores(stage)["policies"]) == 2


def test_an_expected_gain_that_is_there_is_said(stage):
    run(config(expect=[{"better": "same", "than": "start", "by": 0, "apart": False}]), stage)
    # six prompts with three samples: two prompts are added that differ by one sample each way, and t(5) is 2.571
    reach = 100 * 2.5706 * ((2 / 9) / 8 / 7) ** 0.5
    assert_facts(stage.sink.said[-1], "same", "+0.0 points", "from start", f"(-{reach:.1f} to +{reach:.1f}", "p = 1")
    entry, by_task = scores(stage)["differences"]
    assert (entry["stage"], entry["than"], entry["task"], by_task["task"]) == ("same", "start", None, "chain_sum")
    assert entry["pass_rate"]["mean"] == entry["reward"]["mean"] == 0 and entry["pass_rate"]["prompts"] == 6
    start, same = scores(stage)["policies"]
    for line, policy in zip(stage.sink.said[-3:], (start, same), strict=False):
        assert_facts(line, policy["stage"], f"pass rate {100 * policy['pass_rate']['mean']:.1f}%", "reward", "KL")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rewards": ["brief"]}, "none of its rewards .* says what is true"),
        ({"passes": "sure"}, "`passes` names reward `sure`"),
        ({"expect": [{"better": "moved", "than": "start"}]}, "`expect` names `moved`"),
        ({"sampling": {"max_tokens": 510}}, "exceeds the policy's context of 512"),
    ],
)
def test_settings_that_do_not_fit_end_with_a_sentence(stage, fields, message):
    with pytest.raises(UserError, match=message):
        run(config(**fields), stage)


def test_data_without_a_holdout_ends_with_a_sentence(stage):
    none = DATA.model_copy(update={"holdout": 0.0})
    stage.data = {"sums": none}
    with pytest.raises(UserError, match="holds no prompts out"):
        run(config(), stage)


def test_the_passing_reward_must_apply_somewhere(stage, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def certain(prompts, completions, **columns):\n    return [None for _ in completions]\n"
    )
    with pytest.raises(UserError, match="applies to no prompt"):
        run(config(policies=["start"], rewards=["sure"], passes="sure"), stage)
