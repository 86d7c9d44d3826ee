"""The text tower of a multimodal Gemma 3: read as a text policy, and put back where it came from."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, SiglipVisionConfig

from gemsmith.contracts.errors import UserError
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.policy.loading.multimodal import put_back, text_name
from gemsmith.policy.loading.tiny import tiny_config
from gemsmith.policy.text.tokenizer import tiny_tokenizer


def newer(name):
    """The names inside transformers' model, which some writers keep in the file."""
    if name.startswith("language_model.lm_head"):
        return name.removeprefix("language_model.")
    return "model." + name.replace("language_model.model.", "language_model.")


@pytest.fixture
def multimodal(tmp_path):
    """A folder as the hub has it for 4B: text and vision, names `language_model.model.*`."""
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    torch.manual_seed(0)
    config = Gemma3Config(
        text_config=tiny_config().to_dict(), vision_config=vision, mm_tokens_per_image=4, image_token_index=511
    )
    Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path / "whole")
    tiny_tokenizer().save_pretrained(tmp_path / "whole")
    return tmp_path / "whole"


def rename(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({change(name): tensor for name, tensor in tensors.items()}, path, {"format": "pt"})


def loaded(folder, attention="auto"):
    return load_policy(PolicyConfig(model=str(folder), attention=attention))


@pytest.mark.parametrize("layout", [lambda name: name, newer])
def test_the_text_tower_gives_the_logits_of_the_whole_model(multimodal, layout):
    whole = Gemma3ForConditionalGeneration.from_pretrained(multimodal, attn_implementation="sdpa").eval()
    rename(multimodal, layout)
    policy = loaded(multimodal, attention="sdpa")  # the same path on both sides, so that nothing but names can differ
    ids = torch.randint(3, 500, (2, 40), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(policy.model(input_ids=ids).logits, whole(input_ids=ids).logits, atol=1e-6, rtol=0)
    assert policy.end_ids == (1, 106)
    assert policy.model.lm_head.weight is policy.model.model.embed_tokens.weight


def test_it_trains_on_text_without_token_type_ids(multimodal):
    model = loaded(multimodal).model.train()
    ids = torch.randint(3, 500, (2, 40), generator=torch.Generator().manual_seed(0))
    model(input_ids=ids, labels=ids).loss.backward()
    assert model.model.embed_tokens.weight.grad.abs().sum() > 0


def test_it_is_saved_as_a_text_model(multimodal, tmp_path):
    policy = loaded(multimodal)
    save_policy(policy, tmp_path / "text")
    config = json.loads((tmp_path / "text/config.json").read_text())
    assert config["model_type"] == "gemma3_text" and config["architectures"] == ["Gemma3ForCausalLM"]
    tensors = load_file(tmp_path / "text/model.safetensors")
    assert tensors.keys() == {name for name in policy.model.state_dict() if name != "lm_head.weight"}
    again = loaded(tmp_path / "text").model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in policy.model.state_dict().items())


@pytest.mark.parametrize("layout", [lambda name: name, newer])
def test_there_and_back_is_bit_equal(multimodal, tmp_path, layout):
    rename(multimodal, layout)
    save_policy(loaded(multimodal), tmp_path / "text")
    put_back(tmp_path / "text", multimodal, tmp_path / "back")
    before, after = load_file(multimodal / "model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (multimodal, tmp_path / "back"))
    assert old == new


def test_a_trained_tower_changes_the_text_and_leaves_the_vision_side(multimodal, tmp_path):
    policy = load_policy(
        PolicyConfig.model_validate({"model": str(multimodal), "rope": {"factor": 8}, "attention": "sdpa"})
    )
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.01)
    save_policy(policy, tmp_path / "text")
    put_back(tmp_path / "text", multimodal, tmp_path / "back")
    before, after = load_file(multimodal / "model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    for name, tensor in before.items():
        moved = not torch.equal(tensor, after[name])
        assert moved == (text_name(name) is not None), name
    whole = Gemma3ForConditionalGeneration.from_pretrained(tmp_path / "back", attn_implementation="sdpa").eval()
    assert whole.config.text_config.rope_parameters["full_attention"]["factor"] == 8
    ids = torch.randint(3, 500, (1, 40), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(whole(input_ids=ids).logits, policy.model(input_ids=ids).logits, atol=1e-6, rtol=0)


def test_towers_that_do_not_belong_together_are_refused(multimodal, tmp_path):
    save_policy(load_policy(PolicyConfig(model="tiny", size="large")), tmp_path / "large")
    with pytest.raises(UserError, match=r"\[512, 224\].*\[512, 128\]"):
        put_back(tmp_path / "large", multimodal, tmp_path / "back")
    with pytest.raises(UserError, match="holds no text tower"):
        put_back(tmp_path / "large", tmp_path / "large", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_an_incomplete_tower_is_refused(multimodal):
    tensors = load_file(multimodal / "model.safetensors")
    del tensors["language_model.model.layers.3.mlp.up_proj.weight"]
    save_file(tensors, multimodal / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 of the model's tensors \(model.layers.3.mlp.up_proj"):
        loaded(multimodal)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("language_model.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("model.language_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("model.vision_tower.head.probe", None),
        ("multi_modal_projector.mm_soft_emb_norm.weight", None),
    ],
)
def test_names(name, text):
    assert text_name(name) == text
