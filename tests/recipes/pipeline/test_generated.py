"""Generated data in recipes: an edge from the stage that writes them to those that read them."""

import json
from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.curation.config import Generated
from gemsmith.recipes.checks.disjoint import check_data
from gemsmith.recipes.pipeline.pipeline import Pipeline, open_recipe
from gemsmith.recipes.plan.plan import forecast
from gemsmith.recipes.run.runner import run_pipeline
from gemsmith.recipes.run.stages import make_stage
from tests.messages import raises_facts

RECIPE = """\
name: trial
policy: {model: tiny}
data:
  sums: {source: jsonl, path: sums.jsonl, answer: "{answer}", demonstration: "{answer}", columns: [level], holdout: 0.3}
  answers: {source: generated, from: gen}
  words: {source: jsonl, path: words.jsonl, demonstration: "{answer}"}
  all: {source: mixture, of: {answers: 0.5, words: 0.5}}
rewards:
  short: {kind: length, unit: characters, high: 1, slack: 5}
stages:
  - {id: student, kind: sft, data: answers, steps: 1, batch: 2, learning_rate: 0.1}
  - {id: mixed, kind: sft, data: all, steps: 1, batch: 2, learning_rate: 0.1}
  - {id: teacher, kind: sft, data: sums, steps: 1, batch: 2, learning_rate: 0.1}
  - {id: gen, kind: generate, policy: {from: teacher}, data: sums, samples: 4, rewards: [short]}
  - {id: scores, kind: evaluate, policies: [student], data: sums, rewards: [short], passes: short}
"""


def opened(folder: Path, *change: str) -> Pipeline:
    (folder / "trial.yaml").write_text(RECIPE.replace(*change) if change else RECIPE)
    rows = [{"prompt": f"{i} + {i} =", "answer": f"{2 * i}", "level": i} for i in range(16)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "words.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    return open_recipe(str(folder / "trial.yaml"))


def test_stages_run_after_the_one_that_writes_what_they_read(tmp_path: Path):
    pipeline = opened(tmp_path)
    assert [node.id for node in pipeline.nodes] == ["teacher", "gen", "student", "mixed", "scores"]
    inputs = {node.id: node.inputs for node in pipeline.nodes}
    assert inputs["gen"] == ("teacher",) and inputs["student"] == inputs["mixed"] == ("gen",)
    assert {line.id: line.inputs for line in forecast(pipeline, tmp_path / "run")}["student"] == ("gen",)


def test_a_stage_is_given_the_answers_of_its_own_run(tmp_path: Path):
    pipeline = opened(tmp_path)
    nodes = {node.id: node for node in pipeline.nodes}
    output = tmp_path / "run" / pipeline.folder(nodes["gen"]) / "output"
    for name, section in (("student", "answers"), ("mixed", "all")):
        data = make_stage(pipeline, nodes[name], tmp_path / "run").data[section]
        found = data if isinstance(data, Generated) else data.sections["answers"]
        assert found.folder == output and found.columns == ["level"]


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (("from: gen}", "from: gem}"), ("trial.yaml:5", "data.answers.from", '"gem"')),
        (("from: gen}", "from: teacher}"), ("data.answers.from", '"teacher"', "policy", "data: gen")),
        (("policies: [student]", "policies: [gen]"), ("stages.scores.policies.0", '"gen"', "data", "policy")),
        (("from: teacher}, data: sums", "from: student}, data: sums"), ("cycle", "student -> gen -> student")),
        (("from: teacher}, data: sums", "from: teacher}, data: all"), ("cycle", "gen -> gen")),
        (("from: gen}", "from: gen, holdout: 0.1}"), ("data.answers.holdout",)),
        (("samples: 4, rewards: [short]", "samples: 4, rewards: [shirt]"), ("gen.rewards.0", '"shirt"', '"short"')),
        (("samples: 4", "samples: 4, keep: 5"), ("keep", 5, 4)),
        (("slack: 5}", "slack: 5, tasks: [sums]}"), ("stages.gen.rewards", "data.sums")),
    ],
)  # fmt: skip
def test_a_fault_names_line_and_field(tmp_path: Path, change: tuple[str, str], facts: tuple[object, ...]):
    with raises_facts(UserError, "trial.yaml:", *facts):
        opened(tmp_path, *change)


def test_what_changes_the_answers_changes_the_stages_that_read_them(tmp_path: Path):
    before = opened(tmp_path).identities
    after = opened(tmp_path, "samples: 4", "samples: 5").identities
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"gen", "student", "mixed", "scores"}
    assert opened(tmp_path).identities == before


def test_a_held_out_prompt_that_is_asked_by_another_name_is_found_before_anything_runs(tmp_path: Path):
    scores = "  - {id: scores, kind: evaluate, policies: [student], data: more, rewards: [short], passes: short}"
    more = "  more: {source: jsonl, path: more.jsonl, holdout: 0.9}\nrewards:"
    text = RECIPE[: RECIPE.index("  - {id: mixed")] + RECIPE[RECIPE.index("  - {id: gen") :]
    text = text[: text.index("  - {id: scores")].replace("{from: teacher}", "{model: tiny}") + scores
    (tmp_path / "more.jsonl").write_text("".join(json.dumps({"prompt": f"{i} + {i} ="}) + "\n" for i in range(16)))
    pipeline = opened(tmp_path, RECIPE, text.replace("rewards:", more, 1))
    with raises_facts(UserError, "stage scores", "data.more", "stage gen", "data.sums", "held-out"):
        check_data(pipeline, pipeline.nodes)


def test_a_run_of_one_stage_asks_for_the_answers_that_it_reads(tmp_path: Path):
    with raises_facts(UserError, "stage student", "gen", "--only gen"):
        run_pipeline(opened(tmp_path), tmp_path / "run", only=["student"])


def test_a_student_learns_what_a_teacher_has_written(tmp_path: Path):
    """The teacher is `tiny`, untrained: of its tokens, one in 256 ends its turn."""
    untrained = "policy: {model: tiny}, data: sums, samples: 16, sampling: {max_tokens: 32}"
    pipeline = opened(tmp_path, "policy: {from: teacher}, data: sums, samples: 4", untrained)
    run_pipeline(pipeline, tmp_path / "run", only=["gen", "student"])
    (output,) = (tmp_path / "run/stages").glob("gen-*/output")
    prompts = {json.loads(line)["prompt"] for line in (output / "answers.jsonl").read_text().splitlines()}
    assert prompts and len(list((tmp_path / "run/stages").glob("student-*/output"))) == 1
    page = (tmp_path / "run/report.html").read_text()
    assert "Generated answers (gen)" in page and "reward of the best, and of the mean answer" in page
