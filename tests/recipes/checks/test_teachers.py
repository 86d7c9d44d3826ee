"""Teachers in a recipe: what is refused before anything runs, and `gemsmith teacher-cache`."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.curation.teacher_store import writing
from gemsmith.curation.teacher_store.manifest import read_manifest
from gemsmith.recipes.pipeline.pipeline import Pipeline, open_recipe
from gemsmith.recipes.run.runner import run_pipeline
from tests.messages import raises_facts

RECIPE = """\
name: taught
policy: {model: tiny}
data:
  sums: {source: reasoning_gym, task: chain_sum, size: 40, synthesise: {right: 0.5}}
  more: {source: reasoning_gym, task: chain_sum, size: 50, synthesise: {right: 0.5}}
rewards:
  correct: {kind: math}
stages:
  - {id: big, kind: sft, data: sums, steps: 1, batch: 4, learning_rate: 1e-3, max_length: 64}
  - id: targets
    kind: teacher_cache
    teacher: {model: tiny, size: large}
    data: sums
    sampled_logits: 8
    max_length: 64
  - id: it
    kind: distill
    teacher: {from: targets}
    data: sums
    steps: 2
    batch: 4
    learning_rate: 1e-3
    max_length: 64
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "taught.yaml"
    path.write_text(RECIPE)
    return path


def opened(recipe: Path, old: str = "", new: str = "") -> Pipeline:
    assert old in RECIPE
    recipe.write_text(RECIPE.replace(old, new, 1) if old else RECIPE)
    return open_recipe(str(recipe))


@pytest.mark.parametrize(
    ("old", "new", "facts"),
    [
        (
            "{from: targets}",
            "{from: target}",
            ('stage "target"', "policy", "targets"),
        ),
        (
            "teacher: {from: targets}\n",
            "teacher: {from: targets}\n    mode: topk\n",
            ("mode", "topk", "multinomial_counts", '"targets"'),
        ),
        (
            "{from: targets}\n",
            "{from: targets}\n    temperature: 2.0\n",
            ("temperature", "2.0", "1.0", '"targets"'),
        ),
        ("{from: targets}\n", "{from: targets}\n    sampled_logits: 4\n", ("stages.it.sampled_logits", 4, 8)),
        ("1e-3\n    max_length: 64\n", "1e-3\n    max_length: 65\n", ("stages.it.max_length", 65, 64)),
        ("    data: sums\n    steps", "    data: more\n    steps", ("stages.it.data", "more", "sums")),
        (
            "{from: targets}\n",
            "{from: targets}\n    divergence: reverse\n",
            ("stages.it.divergence", "reverse", "forward"),
        ),
        ("{from: targets}\n", "{from: targets}\n    on_policy: 0.5\n", ("stages.it.on_policy", "0.5", 0)),
        ("{model: tiny, size: large}", "{store: x}", ("stages.targets", "store")),
        ("{from: targets}", "{server: 'http://x/v1'}", ("stages.it", "mode", "topk")),
        ("{from: targets}", "{server: 'http://x/v1', store: y}", ("server", "`store`")),
        ("{from: targets}", "{server: x}\n    mode: topk", ("stages.it.teacher.server", "'x'", "server's address")),
        (
            "teacher: {from: targets}",
            "teachers: [{teacher: {model: ./none.gguf}}]",
            ("stages.it.teachers.0.teacher.model", "./none.gguf"),
        ),
        (
            "{from: targets}",
            "{model: tiny}\n    on_policy: 1\n    sampling: {max_tokens: 64}",
            ("stages.it.sampling.max_tokens", 64, "max_length"),
        ),
        ("{from: targets}", "{quantise: int8}", ("stages.it.teacher", "`model`")),
        ("    teacher: {from: targets}\n", "", ("stages.it", "teacher")),
        (
            "{from: targets}",
            "{from: targets}\n    teachers: [{teacher: {model: tiny}}]",
            ("stages.it", "teacher", "teachers"),
        ),
        ("{from: targets}", "{store: x}\n    divergence: jsd", ("stages.it", "divergence", "jsd", "store x")),
        ("{from: targets}", "{store: x}\n    on_policy: 1", ("stages.it", "on_policy", "store")),
        ("policy: {model: tiny}", "policy: {from: targets}", ('"targets"', "policy")),
        (
            "sampled_logits: 8",
            "sampled_logits: 513",
            ("stages.targets.sampled_logits", 513, 512, "tiny"),
        ),
        (
            "teacher: {from: targets}",
            "policy: {from: big}\n    teacher: {store: x}\n    sampled_logits: 513",
            ("stages.it.sampled_logits", 513, 512, "tiny"),
        ),
        (
            "{from: targets}",
            "{server: 'http://x/v1', timeout: .inf}\n    mode: topk",
            ("stages.it.teacher.timeout", "inf"),
        ),
        (
            "teacher: {from: targets}",
            "teachers: [{teacher: {model: tiny}}, {teacher: {model: tiny}, tasks: [chain_sums]}]",
            ("stages.it.teachers.1.tasks.0", '"chain_sums"', "data.sums", "chain_sum"),
        ),
        (
            "teacher: {from: targets}",
            "teachers: [{teacher: {model: tiny}, tasks: [chain_sums]}]",
            ("stages.it.teachers", "data.sums", '"chain_sum"'),
        ),
    ],
)
def test_teachers_that_cannot_be_are_refused_by_validate(
    old: str, new: str, facts: tuple[object, ...], recipe: Path
) -> None:
    with raises_facts(UserError, *facts):
        opened(recipe, old, new)


def test_a_stage_without_a_mode_takes_that_of_the_stage_that_wrote_its_targets(recipe: Path) -> None:
    assert opened(recipe, "    sampled_logits: 8\n", "    sampled_logits: 8\n    mode: gumbel_renorm\n").nodes


@pytest.mark.parametrize(
    ("model", "entries", "whose"),
    [
        ("google/gemma-3-4b-pt", 262_208, "google/gemma-3-4b-pt"),
        ("some/one", 262_144, "Gemma 3"),
        ("./here", 70_000, "./here"),
    ],
)
def test_more_entries_than_a_vocabulary_has_are_refused_before_any_weights_are_there(
    model: str, entries: int, whose: str, recipe: Path
) -> None:
    (recipe.parent / "here").mkdir()
    config = {
        "hidden_size": 4,
        "intermediate_size": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 3,
    }
    config |= {"num_hidden_layers": 1, "vocab_size": 70_000}
    (recipe.parent / "here/config.json").write_text(json.dumps(config))
    text = RECIPE.replace("policy: {model: tiny}", f"policy: {{model: {model}}}").replace(
        "{from: targets}", "{model: tiny}"
    )
    student, store = (
        text.replace("steps: 2", "steps: 2\n    sampled_logits: K"),
        text.replace("_logits: 8", "_logits: K"),
    )
    recipe.write_text(student.replace("K", str(entries)))
    assert open_recipe(str(recipe)).nodes
    recipe.write_text(student.replace("K", str(entries + 1)))
    with raises_facts(UserError, "stages.it.sampled_logits", entries + 1, entries, whose):
        open_recipe(str(recipe))
    recipe.write_text(store.replace("K", "65535"))
    assert open_recipe(str(recipe)).nodes
    recipe.write_text(store.replace("K", "65536"))
    with raises_facts(UserError, "stages.targets.sampled_logits", 65536, 65535):
        open_recipe(str(recipe))


def test_what_comes_from_a_stage_is_held_against_the_context_of_what_that_started_from(recipe: Path) -> None:
    text = RECIPE.replace("    max_length: 64\n", "").replace("{from: targets}", "{model: tiny}\n    policy: POLICY")
    for policy, refused in [("{from: big}", True), ("{from: big, rope: {factor: 2}}", False)]:
        recipe.write_text(text.replace("POLICY", policy) + "    max_length: 513\n")
        if not refused:
            assert open_recipe(str(recipe)).nodes
            continue
        with raises_facts(UserError, "stages.it.max_length", 513, "context", 512):
            open_recipe(str(recipe))
    answers = "  - {id: said, kind: generate, policy: {from: big}, data: sums, keep: 8, sampling: {max_tokens: 512}}\n"
    recipe.write_text(RECIPE + answers)
    with raises_facts(UserError, "stages.said.sampling.max_tokens", 512, "context"):
        open_recipe(str(recipe))


MIXED = "  both: {source: mixture, of: {sums: 1, more: 1}}\nrewards:"


@pytest.mark.parametrize(
    ("old", "new", "refused"),
    [
        ("", "", ["targets", "it"]),
        ("{from: targets}\n", "{model: tiny}\n    on_policy: 1\n    sampling: {max_tokens: 8}\n", ["targets"]),
        ("size: 40", "size: 40, demonstration: '{answer}'", []),
        ("data: sums\n    sampled", "data: both\n    sampled", ["it"]),  # the other part has demonstrations
    ],
)
def test_a_teacher_that_is_to_be_asked_on_demonstrations_is_refused_where_a_section_has_none(
    old: str, new: str, refused: list[str], recipe: Path
) -> None:
    bare = RECIPE.replace("size: 40, synthesise: {right: 0.5}", "size: 40").replace("rewards:", MIXED)
    recipe.write_text(bare.replace(old, new, 1) if old else bare)
    if not refused:
        assert open_recipe(str(recipe)).nodes
        return
    with pytest.raises(UserError) as caught:
        open_recipe(str(recipe))
    lines = str(caught.value).splitlines()
    lines = [line for line in lines if "demonstrations" in line]
    assert [line.split("stages.")[1].split(".data:")[0] for line in lines] == refused


def test_an_adapter_of_a_policy_that_was_trained_without_one_is_refused_by_validate(recipe: Path) -> None:
    stage = "  - {id: file, kind: export, policy: POLICY, formats: [transformers, adapter]}\n"
    recipe.write_text(RECIPE + stage.replace("POLICY", "{from: big}"))
    with raises_facts(UserError, "stages.file.formats.1", "adapter", '"big"', "`lora`"):
        open_recipe(str(recipe))
    recipe.write_text(RECIPE + stage.replace("POLICY", "{model: tiny}"))
    with raises_facts(UserError, "stages.file.formats.1", "adapter", "tiny"):
        open_recipe(str(recipe))
    recipe.write_text(
        (RECIPE + stage).replace("POLICY", "{from: big}").replace("1e-3, max", "1e-3, lora: {rank: 2}, max")
    )
    assert open_recipe(str(recipe)).nodes


def test_a_stage_that_reads_targets_builds_on_them_and_a_store_counts_by_its_manifest(recipe: Path) -> None:
    nodes = {node.id: node for node in opened(recipe).nodes}
    assert nodes["it"].inputs == ("targets",) and nodes["targets"].inputs == ()
    before = opened(recipe, "{from: targets}", "{store: st}").identities["it"]
    (recipe.parent / "st").mkdir()
    (recipe.parent / "st/manifest.json").write_text("1")
    one = opened(recipe, "{from: targets}", "{store: st}").identities["it"]
    (recipe.parent / "st/manifest.json").write_text("2")
    two = opened(recipe, "{from: targets}", "{store: st}").identities["it"]
    assert len({before, one, two}) == 3
    waits = opened(recipe, "{from: targets}", "{server: 'http://x/v1', timeout: 5}\n    mode: topk")
    longer = opened(recipe, "{from: targets}", "{server: 'http://x/v1', timeout: 9}\n    mode: topk")
    assert waits.identities["it"] == longer.identities["it"]


def test_a_four_bit_file_of_a_policy_trained_for_another_grid_is_refused_by_validate(recipe: Path) -> None:
    stages = """\
  - {id: four, kind: qat, format: FORMAT, data: sums, steps: 1, batch: 4, learning_rate: 1e-3, max_length: 64}
  - {id: file, kind: export, policy: {from: four}, formats: [gguf], gguf: q4_0}
"""
    recipe.write_text(RECIPE + stages.replace("FORMAT", "q4_0"))
    assert open_recipe(str(recipe)).nodes[-1].inputs == ("four",)
    recipe.write_text(RECIPE + stages.replace("FORMAT", "sfp8"))
    with raises_facts(UserError, "stages.file.gguf", "q4_0", '"four"', "sfp8"):
        open_recipe(str(recipe))


COMMAND = """
import os, signal, sys
from gemsmith.curation.teacher_store import writing
from gemsmith.recipes.run.view import LineView
writing.SHARD_TOKENS = 12
if sys.argv[1] == "killed":
    def progress(self, done, total, unit, shown):
        if done > total / 2:
            os.kill(os.getpid(), signal.SIGKILL)
    LineView.progress = progress
sys.argv = ["gemsmith", "teacher-cache", "taught.yaml", "it", "--out", "st"]
from gemsmith.recipes.commands.cli import app
app()
"""


def teacher_cache(how: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command, with small shards; with "killed" it ends itself half-way, as `kill -9` does."""
    command = [sys.executable, "-c", COMMAND, how]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)


def test_the_command_writes_what_a_stage_writes(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gemsmith.recipes.commands.actions.teacher_targets import write_teacher_cache

    monkeypatch.setattr(writing, "SHARD_TOKENS", 12)
    monkeypatch.setattr(sys.modules[__name__], "RECIPE", RECIPE.replace("size: 40", "size: 12"))
    folder = recipe.parent
    own = opened(recipe, "{from: targets}", "{store: st, model: tiny, size: large}\n    sampled_logits: 8")
    write_teacher_cache(own, "it", folder / "run", folder / "st")
    run_pipeline(opened(recipe), folder / "run", only=["targets"])
    [written] = (folder / "run").glob("stages/targets-*/output")
    both = [{path.name: path.read_bytes() for path in place.iterdir()} for place in (written, folder / "st")]
    assert both[0] == both[1] and len(both[0]) > 3


@pytest.mark.slow
def test_the_command_goes_on_after_a_kill_to_what_a_stage_writes_and_students_of_both_are_the_same(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "SHARD_TOKENS", 12)
    monkeypatch.setattr(sys.modules[__name__], "RECIPE", RECIPE.replace("size: 40", "size: 12"))
    folder = recipe.parent
    own = "{store: st, model: tiny, size: large}\n    sampled_logits: 8"
    with raises_facts(UserError, "stages.it", "taught.yaml", "folder", "gemsmith teacher-cache RECIPE STAGE --out"):
        run_pipeline(opened(recipe, "{from: targets}", own), folder / "run", only=["it"])
    assert not list((folder / "run").glob("stages/*/output"))
    assert teacher_cache("killed", folder).returncode == -signal.SIGKILL
    assert read_manifest(folder / "st").shards
    with pytest.raises(UserError, match=r"st .*\d+ of \d+ rows"):
        run_pipeline(opened(recipe, "{from: targets}", own), folder / "run", only=["it"])
    done = teacher_cache("whole", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "bytes per token" in done.stdout and done.stdout.endswith("store: st\n")
    run_pipeline(opened(recipe, "{from: targets}", own), folder / "run", only=["it"])
    run_pipeline(opened(recipe), folder / "run", only=["targets", "it"])
    [written] = (folder / "run").glob("stages/targets-*/output")
    both = [{path.name: path.read_bytes() for path in place.iterdir()} for place in (written, folder / "st")]
    assert both[0] == both[1] and len(both[0]) > 3
    one, two = sorted((folder / "run").glob("stages/it-*/output/model.safetensors"))
    assert one.read_bytes() == two.read_bytes()
    assert json.loads((one.parents[1] / "metrics.jsonl").read_text().splitlines()[-1])["kl_from_teacher"] > 0


@pytest.mark.parametrize(
    ("stage", "teacher", "facts"),
    [
        ("its", "{from: targets}", ("its", "targets", '"it"')),
        ("big", "{from: targets}", ("big", "kind sft", "teacher")),
        ("it", "{from: targets}", ("it", "stage targets")),
        ("it", "{store: x}", ("store (x)", "`model`", "`from`")),
        ("it", "{from: big}", ("stage big", "finished", "--only big", "--run")),
    ],
)
def test_the_command_says_what_it_cannot_write(stage: str, teacher: str, facts: tuple[str, ...], recipe: Path) -> None:
    from gemsmith.recipes.commands.actions.teacher_targets import write_teacher_cache

    pipeline = opened(recipe, "{from: targets}", teacher)
    with raises_facts(UserError, f"teacher-cache {stage}", *facts):
        write_teacher_cache(pipeline, stage, recipe.parent / "run", recipe.parent / "out")
