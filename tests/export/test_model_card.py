import json
import re

from transformers import AutoModelForCausalLM, AutoTokenizer

from gemsmith.export.config import ExportStage
from gemsmith.export.export_stage import run
from gemsmith.export.lineage import Ancestor, Lineage, read_lineage
from gemsmith.export.model_card import NOTICE, write_model_card

PROOF = {
    "base": "it", "largest_difference": 0.5, "relative_difference": 0.25, "reload_gap": 0.0, "sequences": 8,
    "dtype": "float32", "parameters": 1234567, "formats": ["transformers"],
}  # fmt: skip
ONE = {"mean": 0.5, "low": 0.25, "high": 0.75}
SCORES = {
    "prompts": 40,
    "samples": 8,
    "initial": "it",
    "passes": "correct",
    "policies": [{"stage": "sft", "pass_rate": ONE, "greedy_pass_rate": ONE, "reward": ONE, "kl": ONE, "length": ONE}],
}


def stages(model="tiny", teacher="tiny"):
    return (
        Ancestor("sft", "sft", {"policy": {"model": model}, "data": "sums", "steps": 400, "learning_rate": 0.002}),
        Ancestor("it", "distill", {"policy": {"from": "sft"}, "teacher": {"model": teacher}, "sampled_logits": 128}),
        Ancestor(
            "aligned",
            "warp",
            {
                "policy": {"from": "it"},
                "runs": 2,
                "inner": {"kind": "bond", "rewards": ["correct", "close"], "beta": 0.5},
            },
        ),
    )


def card(tmp_path, lineage):
    write_model_card(tmp_path, "mine", lineage, PROOF)
    return (tmp_path / "README.md").read_text()


def test_the_card_lists_the_stages_with_their_settings_and_the_recipe(tmp_path):
    text = card(tmp_path, Lineage("quickstart", 1, stages(), recipe="name: quickstart\n"))
    assert "| sft | sft | tiny | sums | steps 400, learning_rate 0.002 |" in text
    assert "| it | distill | sft |  | sampled_logits 128, teacher tiny |" in text
    assert "| aligned | warp of bond | it |  | runs 2, beta 0.5, rewards correct + close |" in text
    assert "```yaml\nname: quickstart\n```" in text
    assert "1,234,567 parameters in float32" in text
    assert "differs from its base, it, by 25% of the weights' norm" in text


def test_the_evaluation_table_shows_percent_and_intervals(tmp_path):
    text = card(tmp_path, Lineage("quickstart", 1, stages(), scores=SCORES))
    percent, number = "50.0% [25.0, 75.0]", "0.50 [0.25, 0.75]"
    assert f"| sft | {percent} | {percent} | {number} | {number} | {number} |" in text


def test_gemma_weights_bring_the_terms_the_notice_and_the_licence(tmp_path):
    text = card(tmp_path, Lineage("run", 0, stages(model="google/gemma-3-1b-pt")))
    assert text.startswith("---\n") and "license: gemma\n" in text.split("---")[1]
    assert "base_model:\n  - google/gemma-3-1b-pt\n" in text.split("---")[1]
    assert NOTICE in text
    assert (tmp_path / "NOTICE").read_text() == NOTICE + "\n"


def test_a_random_tiny_model_is_not_said_to_be_gemma(tmp_path):
    text = card(tmp_path, Lineage("run", 0, stages()))
    assert "license:" not in text and NOTICE not in text
    assert not (tmp_path / "NOTICE").exists()


def test_a_tiny_student_of_a_gemma_teacher_is_a_derivative(tmp_path):
    assert NOTICE in card(tmp_path, Lineage("run", 0, stages(teacher="./gemma-3-270m.gguf")))


def test_an_unknown_history_is_taken_for_gemma(tmp_path):
    text = card(tmp_path, Lineage())
    assert "a model derivative if" in text
    assert NOTICE in text and "without a history" in text and "How it was trained" not in text


def test_lineage_follows_a_run_back_through_teachers_and_finds_its_scores(write_run):
    source = write_run(0.01)
    run_folder = source.parents[2]
    content = json.loads((run_folder / "run.json").read_text())
    for id, kind, inputs, output in (("it", "distill", ["sft"], "{}"), ("scores", "evaluate", ["it"], None)):
        folder = run_folder / "stages" / f"{id}-00000000"
        (folder / "output").mkdir(parents=True)
        settings = {"policy": {"from": "sft"}, "teacher": {"from": "sft"}}
        record = {"id": id, "kind": kind, "inputs": dict.fromkeys(inputs, "x"), "config": settings}
        (folder / "stage.json").write_text(json.dumps(record))
        scores = {"policies": [{"stage": "it"}]}
        (folder / "output" / ("scores.json" if output is None else "config.json")).write_text(
            output or json.dumps(scores)
        )
        content["stages"].append({"id": id, "kind": kind, "folder": f"stages/{id}-00000000", "status": "finished"})
    (run_folder / "run.json").write_text(json.dumps(content))
    lineage = read_lineage(run_folder / "stages" / "it-00000000" / "output")
    assert [stage.id for stage in lineage.stages] == ["sft", "it"]
    assert lineage.origins == ["tiny"]
    assert lineage.start.from_ == "sft" and lineage.folders["sft"] == source
    assert lineage.scores == {"policies": [{"stage": "it"}]}
    assert read_lineage(source).scores is None


def test_the_code_on_the_card_runs(write_run, export_stage, monkeypatch, capsys):
    stage = export_stage(write_run(0.01))
    config = {"id": "release", "kind": "export", "policy": {"from": "sft"}, "base": {"model": "tiny"}}
    run(ExportStage.model_validate(config), stage)
    text = (stage.output / "README.md").read_text()
    assert "# sums-run-sft" in text
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    assert "AutoModelForCausalLM" in code and AutoModelForCausalLM and AutoTokenizer
    exec(code.replace('"sums-run-sft"', repr(str(stage.output))), {})
    assert capsys.readouterr().out.endswith("\n")
