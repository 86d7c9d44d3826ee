import json

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.export.config import ExportStage
from gemsmith.export.export_stage import run
from gemsmith.export.gguf_model import gguf_scheme, write_gguf
from gemsmith.export.gguf_proof import check_gguf
from gemsmith.export.proof import sample_sequences
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.policy.loading.rope import rescale_context
from gemsmith.policy.loading.tiny import tiny_config, tiny_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.quantised import Scheme, quantise_in_place, write_mark
from gemsmith.recipes.commands.actions.policy_export import export_policy
from gemsmith.weights.quantise import quantised

MATRIX = "model.layers.1.mlp.down_proj.weight"


def config(**fields):
    given = {"id": "release", "kind": "export", "policy": {"from": "sft"}, "formats": ["gguf"], **fields}
    return ExportStage.model_validate(given)


def save(policy, folder, mark=None):
    save_policy(policy, folder, (lambda part: write_mark(part, mark)) if mark else None)
    return folder


@pytest.mark.parametrize(
    ("kind", "embedding", "bits"), [("f16", "f16", 16), ("q8_0", "q8_0", 8.5), ("q4_0", "f16", 4.5)]
)
def test_a_policy_comes_back_from_a_gguf_file_as_its_format_holds_it(write_run, export_stage, kind, embedding, bits):
    source = write_run(0.01)
    stage = export_stage(source)
    run(config(gguf=kind, base={"model": "tiny"}), stage)
    proof = json.loads((stage.output / "export.json").read_text())
    found = proof["gguf"]
    assert (proof["formats"], proof["reload_gap"], proof["base"]) == (["gguf"], None, "tiny (small)")
    assert (found["file"], found["matrices"], found["embedding"]) == (f"sums-run-sft-{kind}.gguf", kind, embedding)
    assert 0 < found["mean_gap"] < found["gap"]
    policy = load_policy(PolicyConfig(model=str(source)))
    state = policy.model.state_dict()
    again = load_policy(PolicyConfig(model=str(stage.output / found["file"]), dtype="float32"))
    assert torch.equal(again.model.state_dict()[MATRIX], quantised(state[MATRIX], kind))
    norm = "model.layers.3.input_layernorm.weight"
    assert torch.equal(again.model.state_dict()[norm], (state[norm] + 1) - 1)  # stored as what is multiplied by
    text = "What is 12 + 7?\n  The final answer is ü."
    assert again.tokenizer(text).input_ids == policy.tokenizer(text).input_ids
    matrices = sum(weight.numel() for name, weight in state.items() if name.endswith("_proj.weight"))
    rest = 512 * 128 * {"f16": 16, "q8_0": 8.5}[embedding]
    assert found["bytes"] == pytest.approx((matrices * bits + rest) / 8, rel=0.1)  # and norms, and the vocabulary
    assert "llama-cli -m" in (stage.output / "README.md").read_text()


def test_transformers_alone_reads_the_same_logits_from_the_file(tmp_path):
    policy = tiny_policy(seed=5)
    write_gguf(policy, tmp_path / "model.gguf", Scheme("f16", "f16"), "model")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    ids = torch.tensor([[2, 105, 370, 371, 372]])
    assert torch.allclose(plain(ids).logits, policy.model(ids).logits, atol=0.02)


def test_the_keys_are_those_of_gemma3_and_name_both_ends(tmp_path):
    policy = tiny_policy()
    rescale_context(policy.model, 4.0)
    write_gguf(policy, tmp_path / "model.gguf", Scheme("q4_0", "f16"), "mine")
    fields = {name: field.contents() for name, field in GGUFReader(tmp_path / "model.gguf").fields.items()}
    expected = {
        "general.architecture": "gemma3", "general.name": "mine", "general.file_type": 2,
        "gemma3.context_length": 4 * 512, "gemma3.embedding_length": 128, "gemma3.block_count": 6,
        "gemma3.attention.head_count": 4, "gemma3.attention.head_count_kv": 2, "gemma3.attention.key_length": 32,
        "gemma3.attention.sliding_window": 16, "gemma3.rope.freq_base": 1e6, "gemma3.rope.scaling.factor": 4.0,
        "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.eot_token_id": 106, "tokenizer.ggml.add_bos_token": True,
    }  # fmt: skip
    assert {name: fields[name] for name in expected} == expected
    assert fields["tokenizer.ggml.token_type"][:7] == [3, 3, 3, 3, 4, 4, 4]  # control; <mask> is no special token here
    again = load_policy(PolicyConfig(model=str(tmp_path / "model.gguf")))
    assert again.model.config.rope_parameters["full_attention"]["factor"] == 4.0


def test_a_policy_on_the_grid_is_stored_without_moving_a_weight_and_keeps_its_mark(tmp_path):
    policy, mark = tiny_policy(seed=5), Scheme("q4_0", "q8_0")
    quantise_in_place(policy.model, mark)
    source = save(policy, tmp_path / "int4", mark)
    export_policy(source, None, tmp_path / "out", formats=["transformers", "gguf"], gguf="q4_0")
    proof = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (proof["gguf"]["moved"], proof["gguf"]["embedding"]) == (0, "q8_0")
    assert proof["gguf"]["gap"] < 1e-4  # norms plus one, and minus one
    assert proof["quantisation"] == {"format": "q4_0", "embedding": "q8_0"}
    assert (tmp_path / "out" / "quantisation.json").is_file()
    assert {path.suffix for path in (tmp_path / "out").iterdir()} >= {".gguf", ".safetensors"}


def test_weights_that_left_the_grid_that_their_folder_claims_are_found(tmp_path):
    source = save(tiny_policy(seed=5), tmp_path / "int4", Scheme("q4_0", "f16"))
    with pytest.raises(RunError, match=r"q4_0.* model\.layers\.0"):
        export_policy(source, None, tmp_path / "out", formats=["gguf"], gguf="q4_0")
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_does_not_pass(tmp_path):
    policy, scheme = tiny_policy(seed=5), Scheme("q8_0", "q8_0")
    sequences = sample_sequences(policy, 0)
    path = tmp_path / "model.gguf"
    write_gguf(policy, path, scheme, "model")
    before = {name: weight.clone() for name, weight in policy.model.state_dict().items()}
    assert check_gguf(path, policy, scheme, sequences, None)["moved"] > 0
    assert all(torch.equal(weight, before[name]) for name, weight in policy.model.state_dict().items())
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(RunError, match="holds other bytes of"):
        check_gguf(path, policy, scheme, sequences, None)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("query_pre_attn_scalar", 168, "query_pre_attn_scalar is 168, and readers of a GGUF file assume 256"),
        ("final_logit_softcapping", 30.0, "final_logit_softcapping is 30.0"),
        ("layer_types", ["full_attention"] * 6, "layer_types is "),
    ],
)
def test_what_a_reader_would_take_for_something_else_is_refused(tmp_path, name, value, message):
    policy = tiny_policy()
    setattr(policy.model.config, name, value)
    with pytest.raises(UserError, match=message):
        write_gguf(policy, tmp_path / "model.gguf", Scheme("f16", "f16"), "model")
    assert list(tmp_path.iterdir()) == []


def test_a_width_that_no_block_divides_and_a_file_that_is_there_are_refused(tmp_path):
    odd = tiny_config()
    odd.intermediate_size = 100
    policy = Policy(Gemma3ForCausalLM(odd), tiny_policy().tokenizer)
    with pytest.raises(UserError, match=r"down_proj is 100 wide, and q4_0 holds blocks of 32.*take `gguf: f16`"):
        write_gguf(policy, tmp_path / "model.gguf", Scheme("q4_0", "f16"), "model")
    (tmp_path / "model.gguf").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"model\.gguf exists already"):
        write_gguf(tiny_policy(), tmp_path / "model.gguf", Scheme("f16", "f16"), "model")


def test_a_weight_beyond_the_format_is_refused_before_anything_is_written(tmp_path):
    policy = tiny_policy()
    policy.model.get_parameter(MATRIX).data[0, 0] = 65_520.0  # infinite in float16
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.down_proj .*magnitude .* f16 "):
        write_gguf(policy, tmp_path / "model.gguf", Scheme("f16", "f16"), "model")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_with_a_vision_tower_is_refused(tmp_path):
    source = save(tiny_policy(), tmp_path / "vision")
    content = json.loads((source / "config.json").read_text())
    whole = {"model_type": "gemma3", "text_config": content, "architectures": ["Gemma3ForConditionalGeneration"]}
    (source / "config.json").write_text(json.dumps(whole))
    with pytest.raises(UserError, match="has a vision tower, which this GGUF file would leave out"):
        export_policy(source, None, tmp_path / "out", formats=["gguf"])


def test_the_embedding_is_stored_as_it_was_trained_or_as_gemma_was_released():
    assert gguf_scheme("q4_0", None, None) == Scheme("q4_0", "f16")
    assert gguf_scheme("q8_0", None, None) == Scheme("q8_0", "q8_0")
    assert gguf_scheme("q4_0", None, Scheme("q4_0", "q4_0")) == Scheme("q4_0", "q4_0")
    assert gguf_scheme("q4_0", "q8_0", None) == Scheme("q4_0", "q8_0")
    assert gguf_scheme("f16", None, Scheme("sfp8", "f16")) == Scheme("f16", "f16")
    with pytest.raises(UserError, match=r"trained for sfp8, and `gguf: q4_0` would round its weights once more"):
        gguf_scheme("q4_0", None, Scheme("sfp8", "f16"))


def test_unknown_formats_and_fields_without_their_format_are_refused():
    for fields, message in [
        ({"formats": ["onnx"]}, "'transformers', 'adapter' or 'gguf'"),
        ({"gguf": "q4_k_m"}, "'f16', 'q8_0' or 'q4_0'"),
        ({"formats": ["gguf", "gguf"]}, "names gguf more than once"),
        ({"formats": ["transformers"], "gguf": "q4_0"}, "`gguf` is for the format gguf"),
    ]:
        with pytest.raises(ValidationError, match=message):
            config(**fields)


def test_gemmas_merges_are_told_by_the_order_of_the_entries():
    from gemsmith.export.gguf_tokenizer import _entries

    vocabulary = {"<pad>": 0, "<0x41>": 1, "▁t": 2, "in": 3, "▁▁": 4, "x": 5}
    added = [{"id": 0, "content": "<pad>", "special": True}, {"id": 4, "content": "▁▁", "special": False}]
    content = {"model": {"type": "BPE", "vocab": vocabulary}, "added_tokens": added}
    tokens, scores, types = _entries(content, 7)
    assert tokens == ["<pad>", "<0x41>", "▁t", "in", "  ", "x", "[PAD6]"]
    assert scores == [-1000.0, 0.0, 0.0, -1.0, -1000.0, -3.0, -1000.0]
    assert types == [3, 6, 1, 1, 4, 1, 5]
    assert np.all(np.diff([score for score, kind in zip(scores, types, strict=True) if kind == 1]) < 0)
