import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.export.config import ExportStage
from gemsmith.export.export_stage import run
from gemsmith.export.proof import difference_from_base, reload, reload_gap, sample_sequences
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.recipes.commands.actions.policy_export import export_policy


def config(**fields):
    given = {"id": "release", "kind": "export", "policy": {"from": "sft"}, "base": {"model": "tiny"}, **fields}
    return ExportStage.model_validate(given)


def test_a_trained_policy_is_exported_with_a_reload_gap_of_zero(write_run, export_stage):
    stage = export_stage(write_run(0.01))
    run(config(), stage)
    proof = json.loads((stage.output / "export.json").read_text())
    assert proof["base"] == "tiny (small)"
    assert proof["reload_gap"] == 0.0
    assert proof["sequences"] == 4 * 2
    assert proof["largest_difference"] == pytest.approx(0.045, abs=0.02)  # of 1.4 million normal draws times 0.01
    assert 0 < proof["relative_difference"] < 1


def test_what_was_exported_loads_in_plain_transformers_and_stops_at_both_end_ids(write_run, export_stage):
    stage = export_stage(write_run(0.01))
    run(config(), stage)
    model = AutoModelForCausalLM.from_pretrained(stage.output)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    modes = {path.name: path.stat().st_mode for path in stage.output.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]  # users who can read the folder can read the weights
    assert model.generation_config.eos_token_id == [1, 106]
    prompt = AutoTokenizer.from_pretrained(stage.output).apply_chat_template(
        [{"role": "user", "content": "1 + 1 ="}], add_generation_prompt=True, tokenize=False
    )
    assert prompt == "<bos><start_of_turn>user\n1 + 1 =<end_of_turn>\n<start_of_turn>model\n"


def test_an_export_that_equals_its_base_fails_and_leaves_nothing(write_run, export_stage):
    stage = export_stage(write_run(0.0))
    with pytest.raises(RunError, match=r"equals its base tiny \(small\) in every weight"):
        run(config(), stage)
    assert not stage.output.exists()
    assert list(stage.folder.iterdir()) == []


def test_a_change_that_bfloat16_rounds_away_counts_as_no_change():
    trained, base = torch.tensor([1.0 + 2**-20, 0.5]), torch.tensor([1.0, 0.5])
    assert difference_from_base({"a": trained}, {"a": base}, "sft").largest == 2**-20
    with pytest.raises(RunError, match=r"equals its base sft in every weight \(bfloat16\)"):
        difference_from_base({"a": trained.bfloat16()}, {"a": base}, "sft")


def test_a_failed_export_keeps_the_one_that_was_there(write_run, export_stage):
    stage = export_stage(write_run(0.01))
    run(config(), stage)
    with pytest.raises(RunError, match="equals its base sft"):
        run(config(base={"from": "sft"}), stage)
    assert json.loads((stage.output / "export.json").read_text())["base"] == "tiny (small)"


def test_bfloat16_is_stored_as_such_and_the_gap_is_measured_against_float32(write_run, export_stage):
    stage = export_stage(write_run(0.05))
    run(config(dtype="bfloat16"), stage)
    proof = json.loads((stage.output / "export.json").read_text())
    assert 0.0 < proof["reload_gap"] <= 0.5
    assert {tensor.dtype for tensor in load_file(stage.output / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((stage.output / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_base_of_another_architecture_is_the_users_fault(write_run, export_stage):
    with pytest.raises(UserError, match=r"base tiny \(large\) .*architecture"):
        run(config(base={"model": "tiny", "size": "large"}), export_stage(write_run(0.01)))


def test_without_a_base_nothing_is_compared(write_run, export_stage):
    stage = export_stage(write_run(0.0))
    run(config(base=None), stage)
    proof = json.loads((stage.output / "export.json").read_text())
    assert (proof["base"], proof["largest_difference"], proof["reload_gap"]) == (None, None, 0.0)


def test_an_interrupted_export_starts_again(write_run, export_stage):
    stage = export_stage(write_run(0.01))
    for leftover in ("output.part", "output.part.part"):
        (stage.folder / leftover).mkdir(parents=True)
        (stage.folder / leftover / "model.safetensors").write_bytes(b"half")
    run(config(), stage)
    assert [path.name for path in stage.folder.iterdir()] == ["output"]


@pytest.mark.parametrize("by_its_run", [True, False])
def test_the_command_exports_a_stage_and_finds_its_base_in_the_run(write_run, tmp_path, by_its_run):
    output = write_run(0.01)
    export_policy(output.parents[2] if by_its_run else output, None, tmp_path / "mine")
    proof = json.loads((tmp_path / "mine" / "export.json").read_text())
    assert (proof["base"], proof["dtype"], proof["reload_gap"]) == ("tiny (small)", "float32", 0.0)
    assert proof["largest_difference"] == pytest.approx(0.045, abs=0.02)  # the same `tiny`: the seed is the run's


def test_the_command_refuses_a_policy_that_equals_where_its_stage_started(write_run, tmp_path):
    with pytest.raises(RunError, match="equals its base"):
        export_policy(write_run(0.0).parents[2], "sft", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_the_command_takes_a_folder_that_no_run_wrote(tmp_path):
    save_policy(load_policy(PolicyConfig(model="tiny"), seed=5), tmp_path / "policy")
    export_policy(tmp_path / "policy", None, tmp_path / "mine")
    assert json.loads((tmp_path / "mine" / "export.json").read_text())["base"] is None


def test_the_command_compares_nothing_with_a_base_that_it_would_have_to_look_for(write_run, tmp_path):
    export_policy(write_run(0.01, model="google/gemma-3-1b-pt").parents[2], None, tmp_path / "mine")
    assert json.loads((tmp_path / "mine" / "export.json").read_text())["base"] is None


def test_the_command_never_replaces_what_is_there(write_run, tmp_path):
    source = write_run(0.01)
    with pytest.raises(UserError, match="empty folder"):
        export_policy(source, None, source)
    assert (source / "model.safetensors").is_file()


def test_a_weight_that_comes_back_changed_is_noticed(tmp_path):
    policy = load_policy(PolicyConfig(model="tiny"))
    sequences = sample_sequences(policy, seed=0)
    save_policy(policy, tmp_path / "policy")
    with torch.no_grad():
        policy.model.model.layers[2].mlp.up_proj.weight[0, 0] += 1e-3
    with pytest.raises(RunError, match=r"layers\.2\.mlp\.up_proj\.weight"):
        reload_gap(reload(tmp_path / "policy", policy), policy, sequences)


def test_a_model_that_computes_differently_is_noticed(tmp_path):
    policy = load_policy(PolicyConfig(model="tiny"))
    sequences = sample_sequences(policy, seed=0)
    save_policy(policy, tmp_path / "policy")
    file = tmp_path / "policy" / "config.json"
    file.write_text(file.read_text().replace('"sliding_window": 16', '"sliding_window": 4'))
    with pytest.raises(RunError, match="the largest gap is"):
        reload_gap(reload(tmp_path / "policy", policy), policy, sequences)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("generation_config.json", "106", "107", "ends a completion at"),
        ("config.json", '"tie_word_embeddings": true', '"tie_word_embeddings": false', "head is not tied"),
        ("chat_template.jinja", "<start_of_turn>", "<turn>", "writes prompts differently"),
        ("config.json", '"model_type": "gemma3_text"', '"model_type": "gamma"', "does not load in transformers"),
    ],
)
def test_what_other_tools_rely_on_is_checked(tmp_path, file, old, new, message):
    policy = load_policy(PolicyConfig(model="tiny"))
    save_policy(policy, tmp_path / "policy")
    text = (tmp_path / "policy" / file).read_text()
    assert old in text
    (tmp_path / "policy" / file).write_text(text.replace(old, new))
    with pytest.raises(RunError, match=message):
        reload(tmp_path / "policy", policy)


def test_difference_from_base_is_the_largest_and_the_relative_norm():
    exported, base = (
        {"a": torch.tensor([3.0, 1.0]), "b": torch.ones(2)},
        {"a": torch.tensor([3.0, 4.0]), "b": torch.ones(2)},
    )
    found = difference_from_base(exported, base, "base")
    assert found.largest == 3.0
    assert found.relative == pytest.approx(3 / (9 + 16 + 1 + 1) ** 0.5)


def test_policies_are_called_by_the_stages_that_made_them_whatever_the_key_they_came_under(write_run, tmp_path):
    source = write_run(0.01)
    stage = Stage("export", tmp_path / "work", 3, tmp_path, inputs={"policy": source, "base": source})
    with pytest.raises(RunError, match="equals its base sft"):
        run(config(policy={"from": "policy"}, base={"from": "base"}), stage)
    run(config(policy={"from": "policy"}), stage)
    assert "# sums-run-sft\n" in (stage.output / "README.md").read_text()
