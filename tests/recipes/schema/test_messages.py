"""Messages about a faulty recipe: file, line, field, value found, values expected and nearest name."""

from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.pipeline.pipeline import Pipeline, open_recipe
from tests.messages import assert_facts, raises_facts

RECIPE = """\
name: sums
policy: {model: tiny}
data:
  sums: {source: reasoning_gym, task: chain_sum, size: 100}
rewards:
  correct: {kind: math}
  helpful: {kind: reward_model, from: warm}
stages:
  - {id: sft, kind: sft, data: sums, steps: 4, batch: 8, learning_rate: 1e-3}
  - {id: warm, kind: warm, policy: {from: sft}, data: sums, steps: 4, batch: 8, learning_rate: 1e-3, parallel: 2}
  - id: aligned
    kind: warp
    policy: {from: sft}
    inner:
      kind: bond
      data: sums
      rewards: [correct, helpful]
      steps: 4
      batch: 8
      learning_rate: 1e-3
  - {id: scores, kind: evaluate, policies: [sft, aligned], data: sums, rewards: [correct]}
  - {id: release, kind: export, policy: {from: aligned}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "sums.yaml"
    path.write_text(RECIPE)
    return path


def opened(recipe: Path, old: str = "", new: str = "", sets: tuple[str, ...] = ()) -> Pipeline:
    assert old in RECIPE
    recipe.write_text(RECIPE.replace(old, new, 1) if old else RECIPE)
    return open_recipe(str(recipe), sets)


def message(recipe: Path, old: str = "", new: str = "", sets: tuple[str, ...] = ()) -> str:
    with pytest.raises(UserError) as caught:
        opened(recipe, old, new, sets)
    return str(caught.value)


def test_the_recipe_of_these_tests_is_good(recipe: Path):
    assert [node.id for node in opened(recipe).nodes] == ["sft", "warm", "aligned", "scores", "release"]


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "facts"),
    [
        ("learning_rate: 1e-3}", "learningrate: 1e-3}", 9, "stages.sft.learningrate", ('"learning_rate"',)),
        ("      batch: 8", "      bach: 8", 19, "stages.aligned.inner.bach", ('"batch"',)),
        ("steps: 4, batch", "steps: many, batch", 9, "stages.sft.steps", ('"many"', "integer")),
        ("steps: 4, batch", "steps: yes, batch", 9, "stages.sft.steps", ('"yes"', "integer")),
        ("steps: 4, batch", "steps: true, batch", 9, "stages.sft.steps", ("true", "integer")),
        ("steps: 4, batch", "steps: 0, batch", 9, "stages.sft.steps", (0, 1)),
        ("steps: 4, batch", "batch", 9, "stages.sft.steps", ("missing",)),
        ("kind: sft", "kind: sfft", 9, "stages.sft.kind", ('"sfft"', '"sft"')),
        (
            "source: reasoning_gym",
            "source: reasoning",
            4,
            "data.sums.source",
            ("reasoning_gym", "jsonl", "hub", "python", "mixture", "generated"),
        ),
        ("kind: math", "kind: maths", 6, "rewards.correct.kind", ('"maths"', '"math"')),
        ("{kind: math}", "3", 6, "rewards.correct", (3, "mapping")),
        ("policy: {model: tiny}", "policy: {}", 2, "policy", ("`model`",)),
        ("policy: {model: tiny}", "policy: {model: tny}", 2, "policy.model", ('"tny"', '"tiny"')),
        ("policy: {model: tiny}", "policy: {model: ./none}", 2, "policy.model", ("./none",)),
        ("policy: {model: tiny}", "policy: {model: none.gguf}", 2, "policy.model", ("none.gguf",)),
        (
            "policy: {from: sft}, data",
            "policy: {from: stf}, data",
            10,
            "stages.warm.policy.from",
            ('"stf"', '"sft"'),
        ),
        (
            "policies: [sft, aligned]",
            "policies: [sft, alined]",
            21,
            "stages.scores.policies.1",
            ('"alined"', '"aligned"'),
        ),
        (
            "policies: [sft, aligned]",
            "policies: [warm]",
            21,
            "stages.scores.policies.0",
            ("warm", "reward model", "policy"),
        ),
        ("from: warm", "from: sft", 7, "rewards.helpful.from", ("sft", "reward model", "warm")),
        (
            "rewards: [correct, helpful]",
            "rewards: [correct, helpfull]",
            17,
            "stages.aligned.inner.rewards.1",
            ('"helpfull"', '"helpful"'),
        ),
        ("      data: sums", "      data: sms", 16, "stages.aligned.inner.data", ('"sms"', '"sums"')),
        ("id: warm", "id: sft", 10, "stages.sft.id", ('"sft"', "sums.yaml:9")),
        (
            "[correct, helpful]",
            "[correct, correct]",
            17,
            "stages.aligned.inner.rewards.1",
            ("correct", "reward", "`weight`"),
        ),
        (
            "rewards: [correct, helpful]",
            "rewards: [correct]\n      control: [helpful, helpful]",
            18,
            "stages.aligned.inner.control.1",
            ('"helpful"', "reward", "once"),
        ),
        ("[sft, aligned]", "[sft, sft]", 21, "stages.scores.policies.1", ("sft", "policy", "once")),
        (
            "{kind: math}",
            "{kind: math, weight: .nan}",
            6,
            "rewards.correct.weight",
            ("nan", "finite"),
        ),
        ("{kind: math}", "{kind: math, gate: helpfull}", 6, "rewards.correct.gate", ('"helpfull"', '"helpful"')),
        ("{kind: math}", "{kind: math, clip: [1, 2, 3]}", 6, "rewards.correct.clip", ("2 items",)),
        ("{kind: math}", "{kind: math, clip: [.nan, 1]}", 6, "rewards.correct", ("[low, high]", "low < high")),
        (
            "  - {id: scores",
            "  - {id: again, kind: reinforce, data: sums, rewards: [correct], turns: 3, steps: 4, batch: 8, "
            "learning_rate: 1e-3}\n  - {id: scores",
            6,
            "rewards.correct",
            ("again", "code", "`turns`"),
        ),
        ("rewards: [correct]}", "rewards: [helpful]}", 21, "stages.scores", ("`passes`",)),
        ("id: sft, kind", "id: sft, keep_steps: [3, 2], kind", 9, "stages.sft.keep_steps", ("[3, 2]",)),
        ("id: sft, kind", "id: sft, keep_steps: [4], kind", 9, "stages.sft.keep_steps", (4,)),
        (
            "id: warm, kind",
            "id: warm, starts: [4, 2], kind",
            10,
            "stages.warm.starts.1",
            (2, "sft"),
        ),
        (
            "policy: {from: sft}, data",
            "starts: [4], data",
            10,
            "stages.warm.starts",
            ("policy.from", "sft"),
        ),
        ("id: warm, kind", "id: warm, dropout_in: lora, kind", 10, "stages.warm", ("adapters",)),
        (
            "stages:\n",
            "engine: {deepspeed: {}}\nstages:\n",
            11,
            "stages.warm.parallel",
            ("DeepSpeed",),
        ),
    ],
)
def test_a_fault_names_file_line_field_and_what_was_expected(
    recipe: Path, old: str, new: str, line: int, field: str, facts: tuple[object, ...]
):
    text = message(recipe, old, new)
    start = f"{recipe}:{line}: {field}: "
    assert start in text
    assert_facts(text[text.index(start) + len(start) :], *facts)


def test_all_faults_are_told_at_once_one_line_each(recipe: Path):
    text = message(recipe, "steps: 4, batch: 8, learning_rate: 1e-3}", "stepz: 4, batch: x, learning_rate: 1e-3}")
    assert len(text.splitlines()) == 3  # stepz is unknown, steps is missing, batch is text


def test_a_cycle_is_told_with_its_path(recipe: Path):
    text = message(recipe, "{id: sft, kind: sft,", "{id: sft, kind: sft, policy: {from: aligned},")
    assert "cycle" in text
    assert "sft -> aligned -> sft" in text


def test_a_cycle_through_a_reward_model_is_found(recipe: Path):
    text = message(recipe, "policy: {from: sft}, data", "policy: {from: aligned}, data")
    assert "warm -> aligned -> warm" in text


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("name: [", ("bad.yaml:1", "YAML")),
        ("name: a\nname: b\n", ("bad.yaml:2", "YAML", '"name"', "once")),
        ("- 1\n", ("bad.yaml:1", "list", "mapping")),
        ("", ("bad.yaml:1", "nothing", "mapping")),
    ],
)
def test_a_file_that_is_no_recipe_is_told_in_one_line(tmp_path: Path, text: str, facts: tuple[str, ...]):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with raises_facts(UserError, *facts) as caught:
        open_recipe(str(path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_recipe_names_the_nearest_file(recipe: Path):
    with raises_facts(UserError, "sum.yaml", "sums.yaml"):
        open_recipe(str(recipe.with_name("sum.yaml")))


def test_a_missing_data_file_is_told_with_the_places_where_it_was_looked_for(recipe: Path):
    recipe.with_name("rows.jsonl").write_text("{}")
    jsonl = "source: jsonl, path: row.jsonl}"
    text = message(recipe, "source: reasoning_gym, task: chain_sum, size: 100}", jsonl)
    assert_facts(text, f"{recipe}:4: data.sums.path", "row.jsonl", recipe.parent, "rows.jsonl")


def test_set_overrides_by_index_by_stage_id_and_makes_what_is_not_there(recipe: Path):
    pipeline = opened(
        recipe, sets=("stages.0.steps=7", "stages.aligned.inner.batch=16", "stages.sft.lora.rank=2", "seed=5")
    )
    by_id = {node.id: node.config for node in pipeline.nodes}
    assert by_id["sft"].steps == 7
    assert by_id["sft"].lora.rank == 2
    assert by_id["aligned"].inner.batch == 16
    assert pipeline.seed == 5


def test_set_reads_its_value_as_yaml(recipe: Path):
    pipeline = opened(recipe, sets=("stages.scores.policies=[aligned, sft]", "stages.scores.prompts=null"))
    scores = next(node.config for node in pipeline.nodes if node.id == "scores")
    assert scores.policies == ["aligned", "sft"]
    assert scores.prompts is None


@pytest.mark.parametrize(
    ("assignment", "facts"),
    [
        ("stages.sft.steps", ("dotted.key=value",)),
        ("stages.stf.steps=3", ("stages", "stf", '"sft"')),
        ("stages.9.steps=3", ("stages", "item 9", "sft")),
        ("name.first=3", ("name", "sums", "field first")),
        ("seed=[", ("YAML",)),
        ("stages.sft.steps=many", ("stages.sft.steps", '"many"', "integer")),
        ("stages.sft.stepz=3", ("stages.sft.stepz", '"stepz"', '"steps"')),
    ],
)
def test_a_faulty_override_is_told_as_one(recipe: Path, assignment: str, facts: tuple[str, ...]):
    text = message(recipe, sets=(assignment,))
    label = f"--set {assignment}: "
    assert text.startswith(label)
    assert_facts(text.removeprefix(label), *facts)


@pytest.mark.parametrize(
    ("target", "facts"),
    [
        ("mad.py:rows", ("mad.py", '"made.py"')),
        ("made.py:row", ("row", "made.py", '"rows"')),
        ("made.py", ("file.py:function", "package.module:function")),
        ("broken.py:rows", ("broken.py:1", "syntax error")),
    ],
)
def test_a_data_function_is_looked_for_in_its_source(recipe: Path, target: str, facts: tuple[str, ...]):
    (recipe.parent / "made.py").write_text("def rows(): raise RuntimeError('nothing is run')\n")
    (recipe.parent / "broken.py").write_text("def rows(:\n")
    section = "{source: reasoning_gym, task: chain_sum, size: 100}"
    assert opened(recipe, section, '{source: python, target: "made.py:rows"}').data["sums"].target == "made.py:rows"
    said = message(recipe, section, f'{{source: python, target: "{target}"}}')
    assert_facts(said, f"{recipe}:4: data.sums.target", *facts)


def test_a_code_reward_decides_what_passes(recipe: Path):
    assert opened(recipe, "{kind: math}", "{kind: code, partial: true}").rewards["correct"].partial is True


def test_what_is_learnt_can_be_clipped(recipe: Path):
    assert opened(recipe, "{kind: math}", "{kind: math, clip: [0, 0.5]}").rewards["correct"].clip == [0, 0.5]


def test_a_control_that_is_learnt_from_is_told_in_one_sentence(recipe: Path):
    text = message(recipe, "rewards: [correct, helpful]", "rewards: [correct, helpful]\n      control: [helpful]")
    assert len(text.splitlines()) == 1
    assert_facts(text, f"{recipe}:", "stages.aligned.inner", "control", "helpful", "`rewards`")


def test_a_template_without_quotes_is_named_with_the_quotes_that_it_needs(recipe: Path):
    assert_facts(
        message(recipe, "task: chain_sum, size: 100", "task: chain_sum, size: 100, prompt: {question}"),
        "data.sums.prompt",
        "mapping",
        'quotes: "{question}"',
    )
