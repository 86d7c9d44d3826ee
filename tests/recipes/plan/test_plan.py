"""The plan: sizes by formula against the models themselves, states and times from the run's folder."""

from pathlib import Path

import pytest
from counting_stage import pipeline_of

from gemsmith.contracts.errors import UserError
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.forecast import ADAM_BYTES, PROMPTS, SAMPLING_FLOPS, TRAINING_FLOPS
from gemsmith.policy.sizes import KNOWN, TINY, shape_of
from gemsmith.recipes.pipeline.pipeline import open_recipe
from gemsmith.recipes.plan.plan import (
    Forecast,
    count,
    exempt,
    forecast,
    size,
    summary,
)
from gemsmith.recipes.run.machine import cores
from gemsmith.recipes.run.runner import run_pipeline
from tests.messages import assert_facts, raises_facts


@pytest.mark.parametrize("name", ["small", "large"])
def test_the_formula_counts_what_the_tiny_model_has(name: str):
    torch = pytest.importorskip("torch")
    from transformers import Gemma3ForCausalLM

    from gemsmith.policy.loading.tiny import tiny_config

    with torch.device("meta"):
        model = Gemma3ForCausalLM(tiny_config(name))  # type: ignore[arg-type]
    assert TINY[name].parameters == sum(parameter.numel() for parameter in model.parameters())


def test_the_formula_counts_the_released_models():
    # Gemma 3 report, table 1, and the 270M's model card: embedding and the rest, in millions.
    assert KNOWN["270m"].parameters == pytest.approx(168e6 + 100e6, rel=0.01)
    assert KNOWN["1b"].parameters == pytest.approx(302e6 + 698e6, rel=0.01)
    assert KNOWN["4b"].parameters == pytest.approx(675e6 + 3209e6, rel=0.01)
    assert KNOWN["12b"].parameters == pytest.approx(1012e6 + 10_759e6, rel=0.01)
    assert KNOWN["27b"].parameters == pytest.approx(1416e6 + 25_600e6, rel=0.01)


def test_the_size_of_a_local_model_comes_from_its_configuration(tmp_path: Path):
    (tmp_path / "config.json").write_text(
        '{"hidden_size": 4, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 3,'
        ' "num_hidden_layers": 1, "vocab_size": 10}'
    )
    shape = shape_of(PolicyConfig(model=str(tmp_path)), tmp_path)
    attention = 4 * 2 * 3 + 2 * (4 * 1 * 3) + 2 * 3 * 4  # q, k and v, o
    norms = 4 * 4 + 2 * 3
    assert shape is not None
    assert shape.parameters == 10 * 4 + (attention + 3 * 4 * 8 + norms) + 4


def test_an_unknown_model_has_no_size(tmp_path: Path):
    assert shape_of(PolicyConfig(model="someone/something"), tmp_path) is None


def test_the_plan_shows_states_and_measured_times(tmp_path: Path):
    run = tmp_path / "run"
    pipeline = pipeline_of({"a": {}, "b": {"from": "a"}}, tmp_path)
    assert [line.status for line in forecast(pipeline, run)] == ["to run", "to run"]
    run_pipeline(pipeline, run, only=["a"])
    lines = forecast(pipeline, run)
    assert [(line.status, line.measured) for line in lines] == [("finished", True), ("to run", False)]
    run_pipeline(pipeline, run)
    assert summary(forecast(pipeline, run)) == "Nothing is left to run."


def test_the_time_of_a_changed_stage_comes_from_its_earlier_run(tmp_path: Path):
    run = tmp_path / "run"
    run_pipeline(pipeline_of({"a": {}}, tmp_path), run)
    (line,) = forecast(pipeline_of({"a": {"steps": 4}}, tmp_path), run)
    assert (line.status, line.measured) == ("to run", True)


def test_numbers_are_written_short():
    assert [count(n) for n in (None, 12, 1_396_224, 999_885_952)] == ["?", "12", "1.4M", "1e+03M"]
    assert [size(n) for n in (31e6, 3.4e9)] == ["31 MB", "3.4 GB"]


def test_the_plan_says_which_stages_are_not_the_same_to_the_bit(tmp_path: Path):
    recipe = """
name: small
policy: {model: tiny}
data: {sums: {source: reasoning_gym, task: chain_sum, size: 40}}
rewards: {correct: {kind: math}}
stages:
  - {id: plain, kind: bond, data: sums, rewards: [correct], steps: 1, batch: 2, learning_rate: 1.0e-4}
  - id: merged
    kind: warp
    inner:
      {kind: bond, data: sums, rewards: [correct], steps: 1, batch: 2, learning_rate: 1.0e-4, sampler: {backend: vllm}}
"""
    (tmp_path / "small.yaml").write_text(recipe)
    said = exempt(open_recipe(str(tmp_path / "small.yaml")))
    assert said is not None and "merged (sampler: vllm)" in said and "plain" not in said
    overlapping = recipe.replace("backend: vllm}", "backend: vllm}, overlap: true, importance_cap: 2")
    (tmp_path / "small.yaml").write_text(overlapping)
    assert_facts(exempt(open_recipe(str(tmp_path / "small.yaml"))), "when merged continues", "newer weights")
    for wrong, facts in [
        (overlapping.replace("vllm", "transformers"), ("overlap", "sampler.backend")),
        (overlapping.replace(", importance_cap: 2", ""), ("overlap", "importance_cap")),
        (overlapping.replace("vllm}", "vllm, sleep: true}"), ("overlap", "sleep")),
    ]:
        (tmp_path / "small.yaml").write_text(wrong)
        with raises_facts(UserError, "small.yaml", *facts):
            open_recipe(str(tmp_path / "small.yaml"))
    (tmp_path / "small.yaml").write_text(recipe.replace("vllm", "transformers"))
    assert exempt(open_recipe(str(tmp_path / "small.yaml"))) is None
    (tmp_path / "small.yaml").write_text(recipe.replace("vllm", "server"))
    with raises_facts(UserError, "merged", "server", "weights"):
        open_recipe(str(tmp_path / "small.yaml"))


JUDGED = """
name: judged
policy: {model: tiny}
data: {sums: {source: reasoning_gym, task: chain_sum, size: 40, synthesise: {}}}
rewards: {correct: {kind: math}, helpful: {kind: reward_model, from: warm}}
stages:
  - {id: warm, kind: warm, data: sums, members: 4, keep: 3, steps: 1, batch: 2, learning_rate: 1.0e-4}
  - id: aligned
    kind: warp
    inner: {kind: bond, data: sums, rewards: [correct], steps: 1, batch: 2, learning_rate: 1.0e-4}
  - {id: scores, kind: evaluate, policies: [aligned], data: sums, rewards: [correct]}
"""


@pytest.mark.parametrize(
    ("serve", "field", "models"),
    [("average", "rewards", 1), ("mean", "rewards", 3), ("lower_bound", "control", 3), ("average", "control", 1)],
)
def test_every_reward_model_that_is_held_is_counted(tmp_path: Path, serve: str, field: str, models: int):
    """The plan of stages that hold reward models, less that of the same stages without them."""
    named = {"rewards": "rewards: [correct, helpful]", "control": "rewards: [correct], control: [helpful]"}[field]
    plans = []
    for text in (
        JUDGED,
        JUDGED.replace("from: warm", f"from: warm, serve: {serve}").replace("rewards: [correct]", named),
    ):
        (tmp_path / "judged.yaml").write_text(text.replace(named + "}", "rewards: [correct, helpful]}"))
        plans.append({line.id: line for line in forecast(open_recipe(str(tmp_path / "judged.yaml")), tmp_path / "run")})
    for stage in ("aligned", "scores"):
        without, held = (lines[stage] for lines in plans)
        assert held.memory - without.memory == models * 4 * TINY["small"].parameters  # float32
        assert without.seconds is None or held.seconds > without.seconds  # None where a GPU would run it


BOND = """
name: small
policy: {model: tiny}
data: {sums: {source: reasoning_gym, task: chain_sum, size: 40}}
rewards: {correct: {kind: math}}
stages:
  - {id: a, kind: bond, data: sums, rewards: [correct], steps: 9, batch: 2, learning_rate: 1.0e-4FIELDS}
"""


def bond_line(tmp_path: Path, fields: str, more: str = "") -> Forecast:
    (tmp_path / "small.yaml").write_text(BOND.replace("FIELDS", fields) + more)
    (line,) = forecast(open_recipe(str(tmp_path / "small.yaml")), tmp_path / "run")
    return line


def test_the_plan_counts_what_bond_draws_and_trains_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gemsmith.recipes.plan.plan.gpus", lambda: [])
    few, many, learnt = (
        bond_line(tmp_path, f", form: bond, n: 4, {estimate}")
        for estimate in ("quantile_samples: 4", "quantile_samples: 24", "quantile: classifier")
    )
    assert few.seconds is not None and many.seconds is not None and learnt.seconds is not None
    step = 2.0 * 1_396_224 * 9 * 2 * 16 / cores()  # FLOP of one pass over the stage's examples, of 16 tokens each
    assert many.seconds - few.seconds == pytest.approx((24 - 4) * step / SAMPLING_FLOPS)
    assert learnt.seconds - few.seconds == pytest.approx(3 * step / TRAINING_FLOPS)
    assert few.memory is not None and learnt.memory == few.memory + ADAM_BYTES * few.parameters  # type: ignore[operator]


TAUGHT = """
name: small
policy: {model: tiny}
data: {sums: {source: reasoning_gym, task: chain_sum, size: 40, synthesise: {}}}
rewards: {helpful: {kind: reward_model, from: warm}}
stages:
  - {id: warm, kind: warm, data: sums, steps: 1, batch: 2, learning_rate: 1.0e-4}
  - id: it
    kind: distill
    teacher: {model: tiny, size: large}
    data: sums
    steps: 9
    batch: 2
    learning_rate: 1.0e-4
"""


OWN = "    on_policy: 0.5\n    samples: 4\n"


def taught_line(tmp_path: Path, fields: str) -> Forecast:
    (tmp_path / "small.yaml").write_text(TAUGHT + fields)
    return forecast(open_recipe(str(tmp_path / "small.yaml")), tmp_path / "run")[1]


def test_the_plan_counts_the_students_sampling_in_its_share_of_a_distillations_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gemsmith.recipes.plan.plan.gpus", lambda: [])
    shown, half, judged = (taught_line(tmp_path, fields) for fields in ("", OWN, OWN + "    rewards: [helpful]\n"))
    assert shown.seconds is not None and half.seconds is not None and judged.seconds is not None
    student, teacher = TINY["small"].parameters, TINY["large"].parameters
    tokens = 9 * 2 * 16 / cores()  # of the stage's examples, of 16 tokens each
    learning = (3 * 2.0 * student + 2.0 * teacher) / TRAINING_FLOPS  # forward and backward, and the teacher's forward
    assert shown.seconds == pytest.approx(2 + tokens * learning)
    # Half of the steps have four completions of each prompt in place of its demonstration.
    assert half.seconds == pytest.approx(
        2 + tokens * ((0.5 + 0.5 * 4) * learning + 0.5 * 4 * 2.0 * student / SAMPLING_FLOPS)
    )
    assert judged.seconds - half.seconds == pytest.approx(tokens * 0.5 * 4 * 2.0 * student / TRAINING_FLOPS)
    assert judged.memory is not None and half.memory is not None
    assert judged.memory - half.memory == 4 * student


def test_the_plan_counts_a_teacher_where_it_is_asked_and_not_where_its_targets_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gemsmith.recipes.plan.plan.gpus", lambda: [])
    asking = taught_line(tmp_path, "")
    cache = "  - {id: targets, kind: teacher_cache, teacher: {model: tiny, size: large}, data: sums}\n"
    own = TAUGHT.replace("{model: tiny, size: large}", "{from: targets}")
    (tmp_path / "small.yaml").write_text(own + cache)
    lines = {line.id: line for line in forecast(open_recipe(str(tmp_path / "small.yaml")), tmp_path / "run")}
    student, teacher = TINY["small"].parameters, TINY["large"].parameters
    assert lines["targets"].memory == 4 * (student + teacher)  # float32
    assert lines["targets"].seconds == pytest.approx(2 + PROMPTS * 16 * 2.0 * teacher / (TRAINING_FLOPS * cores()))
    assert asking.memory is not None and lines["it"].memory == asking.memory - 4 * teacher
    assert lines["it"].seconds == pytest.approx(2 + 9 * 2 * 16 * 3 * 2.0 * student / (TRAINING_FLOPS * cores()))


def test_a_classifier_beside_the_policy_is_refused_under_deepspeed(tmp_path: Path):
    with raises_facts(UserError, "a.quantile", "classifier", "samples", "deepspeed"):
        bond_line(tmp_path, ", form: bond, quantile: classifier", "engine: {deepspeed: {zero: 2}}\n")
