"""What a person reads who wrote a faulty recipe: file, line, field, found, expected, nearest name."""

from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.pipeline.pipeline import Pipeline, open_recipe
from tests.messages import assert_facts

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
    ("old", "new", "line", "field", "words"),
    [
        ("learning_rate: 1e-3}", "learningrate: 1e-3}", 9, "stages.sft.learningrate", 'did you mean "learning_rate"?'),
        ("      batch: 8", "      bach: 8", 19, "stages.aligned.inner.bach", 'did you mean "batch"?'),
        ("steps: 4, batch", "steps: many, batch", 9, "stages.sft.steps", 'found "many", expected an integer'),
        ("steps: 4, batch", "steps: yes, batch", 9, "stages.sft.steps", 'found "yes", expected an integer'),
        ("steps: 4, batch", "steps: true, batch", 9, "stages.sft.steps", "found true, expected an integer"),
        ("steps: 4, batch", "steps: 0, batch", 9, "stages.sft.steps", "greater than or equal to 1"),
        ("steps: 4, batch", "batch", 9, "stages.sft.steps", "this key is missing"),
        ("kind: sft", "kind: sfft", 9, "stages.sft.kind", 'did you mean "sft"?'),
        (
            "source: reasoning_gym",
            "source: reasoning",
            4,
            "data.sums.source",
            "reasoning_gym, jsonl, hub, python, mixture or generated",
        ),
        ("kind: math", "kind: maths", 6, "rewards.correct.kind", 'did you mean "math"?'),
        ("{kind: math}", "3", 6, "rewards.correct", "found 3, expected a mapping"),
        ("policy: {model: tiny}", "policy: {}", 2, "policy", "give either `model`"),
        ("policy: {model: tiny}", "policy: {model: tny}", 2, "policy.model", 'did you mean "tiny"?'),
        ("policy: {model: tiny}", "policy: {model: ./none}", 2, "policy.model", "found no ./none"),
        ("policy: {model: tiny}", "policy: {model: none.gguf}", 2, "policy.model", "found no none.gguf"),
        (
            "policy: {from: sft}, data",
            "policy: {from: stf}, data",
            10,
            "stages.warm.policy.from",
            'did you mean "sft"?',
        ),
        (
            "policies: [sft, aligned]",
            "policies: [sft, alined]",
            21,
            "stages.scores.policies.1",
            'did you mean "aligned"?',
        ),
        (
            "policies: [sft, aligned]",
            "policies: [warm]",
            21,
            "stages.scores.policies.0",
            "whose output is a reward model",
        ),
        ("from: warm", "from: sft", 7, "rewards.helpful.from", "expected a stage whose output is a reward model: warm"),
        (
            "rewards: [correct, helpful]",
            "rewards: [correct, helpfull]",
            17,
            "stages.aligned.inner.rewards.1",
            '"helpful"?',
        ),
        ("      data: sums", "      data: sms", 16, "stages.aligned.inner.data", 'did you mean "sums"?'),
        ("id: warm", "id: sft", 10, "stages.sft.id", "a second time"),
        ("[correct, helpful]", "[correct, correct]", 17, "stages.aligned.inner.rewards.1", "expected each reward once"),
        (
            "rewards: [correct, helpful]",
            "rewards: [correct]\n      control: [helpful, helpful]",
            18,
            "stages.aligned.inner.control.1",
            'found "helpful" a second time',
        ),
        ("[sft, aligned]", "[sft, sft]", 21, "stages.scores.policies.1", "expected each policy once"),
        (
            "{kind: math}",
            "{kind: math, weight: .nan}",
            6,
            "rewards.correct.weight",
            "found nan, expected a finite number",
        ),
        ("{kind: math}", "{kind: math, gate: helpfull}", 6, "rewards.correct.gate", 'did you mean "helpful"?'),
        ("{kind: math}", "{kind: math, clip: [1, 2, 3]}", 6, "rewards.correct.clip", "expected at most 2 items"),
        ("{kind: math}", "{kind: math, clip: [.nan, 1]}", 6, "rewards.correct", "expected [low, high] with low < high"),
        (
            "  - {id: scores",
            "  - {id: again, kind: reinforce, data: sums, rewards: [correct], turns: 3, steps: 4, batch: 8, "
            "learning_rate: 1e-3}\n  - {id: scores",
            6,
            "rewards.correct",
            "stage again: expected kind code",
        ),
        ("rewards: [correct]}", "rewards: [helpful]}", 21, "stages.scores", "expected `passes`"),
        ("id: sft, kind", "id: sft, keep_steps: [3, 2], kind", 9, "stages.sft.keep_steps", "[3, 2] do not rise"),
        ("id: sft, kind", "id: sft, keep_steps: [4], kind", 9, "stages.sft.keep_steps", "4 is not before the last, 4"),
        (
            "id: warm, kind",
            "id: warm, starts: [4, 2], kind",
            10,
            "stages.warm.starts.1",
            "found 2, expected a step that",
        ),
        (
            "policy: {from: sft}, data",
            "starts: [4], data",
            10,
            "stages.warm.starts",
            "found no stage in policy.from, expected the stage of kind sft that keeps these steps",
        ),
        ("id: warm, kind", "id: warm, dropout_in: lora, kind", 10, "stages.warm", "dropout_in is lora"),
        (
            "stages:\n",
            "engine: {deepspeed: {}}\nstages:\n",
            11,
            "stages.warm.parallel",
            "DeepSpeed, which trains each member",
        ),
    ],
)
def test_a_fault_names_file_line_field_and_what_was_expected(
    recipe: Path, old: str, new: str, line: int, field: str, words: str
):
    text = message(recipe, old, new)
    assert f"{recipe}:{line}: {field}: " in text
    assert words in text


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
    ("text", "words"),
    [
        ("name: [", "1: the file is not YAML"),
        ("name: a\nname: b\n", '2: the file is not YAML: found the key "name" a second time, expected each key once'),
        ("- 1\n", "found a list, expected a mapping"),
        ("", "found nothing, expected a mapping"),
    ],
)
def test_a_file_that_is_no_recipe_is_told_in_one_line(tmp_path: Path, text: str, words: str):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        open_recipe(str(path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_recipe_names_the_nearest_file(recipe: Path):
    with pytest.raises(UserError, match=r"sums\.yaml"):
        open_recipe(str(recipe.with_name("sum.yaml")))


def test_a_missing_data_file_is_told_with_the_places_where_it_was_looked_for(recipe: Path):
    recipe.with_name("rows.jsonl").write_text("{}")
    jsonl = "source: jsonl, path: row.jsonl}"
    text = message(recipe, "source: reasoning_gym, task: chain_sum, size: 100}", jsonl)
    assert ":4: data.sums.path: found no row.jsonl" in text
    assert str(recipe.parent) in text
    assert "rows.jsonl" in text


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
    ("assignment", "words"),
    [
        ("stages.sft.steps", "expected dotted.key=value"),
        ("stages.stf.steps=3", 'did you mean "sft"?'),
        ("stages.9.steps=3", "has no item 9"),
        ("name.first=3", "which has no field first"),
        ("seed=[", "not YAML"),
        ("stages.sft.steps=many", '--set stages.sft.steps=many: stages.sft.steps: found "many"'),
        ("stages.sft.stepz=3", 'did you mean "steps"?'),
    ],
)
def test_a_faulty_override_is_told_as_one(recipe: Path, assignment: str, words: str):
    assert words in message(recipe, sets=(assignment,))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("mad.py:rows", "found no file mad.py in"),
        ("made.py:row", "found no function row in"),
        ("made.py", "expected file.py:function or package.module:function"),
        ("broken.py:rows", "broken.py:1: found a syntax error"),
    ],
)
def test_a_data_function_is_looked_for_in_its_source(recipe: Path, target: str, words: str):
    (recipe.parent / "made.py").write_text("def rows(): raise RuntimeError('nothing is run')\n")
    (recipe.parent / "broken.py").write_text("def rows(:\n")
    section = "{source: reasoning_gym, task: chain_sum, size: 100}"
    assert opened(recipe, section, '{source: python, target: "made.py:rows"}').data["sums"].target == "made.py:rows"
    said = message(recipe, section, f'{{source: python, target: "{target}"}}')
    assert f"{recipe}:4: data.sums.target: " in said and words in said


def test_a_code_reward_decides_what_passes(recipe: Path):
    assert opened(recipe, "{kind: math}", "{kind: code, partial: true}").rewards["correct"].partial is True


def test_what_is_learnt_can_be_clipped(recipe: Path):
    assert opened(recipe, "{kind: math}", "{kind: math, clip: [0, 0.5]}").rewards["correct"].clip == [0, 0.5]


def test_a_control_that_is_learnt_from_is_told_in_one_sentence(recipe: Path):
    text = message(recipe, "rewards: [correct, helpful]", "rewards: [correct, helpful]\n      control: [helpful]")
    assert f"{recipe}:" in text and len(text.splitlines()) == 1
    assert_facts(text, "stages.aligned.inner", "control names helpful", "`rewards`")
