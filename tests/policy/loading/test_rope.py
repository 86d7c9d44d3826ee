"""Context rescaling: global layers' frequencies divided, local ones as they were, and a saved config that says so."""

import json

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoConfig, AutoModelForCausalLM

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import ReasoningGymData
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.policy.loading.rope import rescale_context
from gemsmith.rl.stages.sft.config import SftStage
from gemsmith.rl.stages.sft.stage import run as run_sft

TINY = {"model": "tiny"}


def rescaled(factor, **fields):
    return load_policy(PolicyConfig.model_validate({**TINY, **fields, "rope": {"factor": factor}}))


def frequencies(model):
    rope = model.model.rotary_emb
    return rope.full_attention_inv_freq, rope.sliding_attention_inv_freq


def test_global_frequencies_are_divided_and_local_ones_are_not():
    plain_global, plain_local = frequencies(load_policy(PolicyConfig(**TINY)).model)
    model = rescaled(8).model
    stretched, local = frequencies(model)
    torch.testing.assert_close(stretched, plain_global / 8, rtol=1e-6, atol=0)
    assert torch.equal(local, plain_local)
    assert model.config.max_position_embeddings == 8 * 512


def test_logits_are_those_of_global_positions_divided(decided):
    """The rescaled model at positions 0, 8, 16, ... of global layers, with local ones left at 0, 1, 2, ..."""
    ids = torch.randint(363, 512, (1, 40), generator=torch.Generator().manual_seed(0))
    plain = decided.model(input_ids=ids).logits
    rope = decided.model.model.rotary_emb
    original = rope.forward
    rope.forward = lambda x, positions, kind: original(
        x, positions / 8 if kind == "full_attention" else positions, kind
    )
    expected = decided.model(input_ids=ids).logits
    rope.forward = original
    rescale_context(decided.model, 8)
    got = decided.model(input_ids=ids).logits
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(got[:, 0], plain[:, 0], atol=1e-4, rtol=0)  # position 0 is 0 / 8
    assert (got[:, 20:] - plain[:, 20:]).abs().max() > 0.1


def test_saving_and_loading_keep_it_in_the_shape_that_transformers_and_vllm_read(tmp_path):
    policy = rescaled(8)
    save_policy(policy, tmp_path / "long")
    saved = json.loads((tmp_path / "long/config.json").read_text())
    assert saved["rope_parameters"] == {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    }
    assert saved["max_position_embeddings"] == 4096
    by_transformers = AutoModelForCausalLM.from_pretrained(tmp_path / "long")
    again = load_policy(PolicyConfig(model=str(tmp_path / "long")))
    for model in (by_transformers, again.model):
        for found, expected in zip(frequencies(model), frequencies(policy.model), strict=True):
            assert torch.equal(found, expected)


def test_the_older_spelling_of_released_configurations_is_the_same_factor(tmp_path):
    save_policy(load_policy(PolicyConfig(**TINY)), tmp_path / "old")
    config = json.loads((tmp_path / "old/config.json").read_text())
    del config["rope_parameters"]  # as google/gemma-3-4b-it writes it
    config.update(rope_theta=1e6, rope_local_base_freq=1e4, rope_scaling={"factor": 8.0, "rope_type": "linear"})
    config["max_position_embeddings"] = 4096
    (tmp_path / "old/config.json").write_text(json.dumps(config))
    longer = rescaled(16, model=str(tmp_path / "old")).model
    expected, local = frequencies(rescaled(16).model)
    assert torch.equal(frequencies(longer)[0], expected) and torch.equal(frequencies(longer)[1], local)
    assert longer.config.max_position_embeddings == 4096 * 16 / 8


def test_the_factor_is_that_of_the_result_and_applying_it_again_changes_nothing(tmp_path):
    save_policy(rescaled(8), tmp_path / "long")
    again = rescaled(8, model=str(tmp_path / "long")).model
    assert again.config.max_position_embeddings == 4096
    assert torch.equal(frequencies(again)[0], frequencies(rescaled(8).model)[0])
    with pytest.raises(UserError, match=r"factor: 4.* the factor 8 "):
        rescaled(4, model=str(tmp_path / "long"))


def test_another_way_of_rescaling_is_refused(tmp_path):
    save_policy(rescaled(8), tmp_path / "yarn")
    config = json.loads((tmp_path / "yarn/config.json").read_text())
    config["rope_parameters"]["full_attention"].update(rope_type="yarn", original_max_position_embeddings=512)
    (tmp_path / "yarn/config.json").write_text(json.dumps(config))
    assert AutoConfig.from_pretrained(tmp_path / "yarn").rope_parameters["full_attention"]["rope_type"] == "yarn"
    with pytest.raises(UserError, match="rescale positions by 'yarn'"):
        rescaled(8, model=str(tmp_path / "yarn"))


@pytest.mark.parametrize("factor", [0.5, 0, -8, float("inf"), float("nan")])
def test_a_factor_that_is_none_is_refused(factor):
    with pytest.raises(ValidationError, match=r"rope\.factor"):
        PolicyConfig.model_validate({**TINY, "rope": {"factor": factor}})


def stage_in(folder, inputs):
    sums = ReasoningGymData(
        source="reasoning_gym", task="chain_sum", size=40, prompt="{metadata[expression]} =", synthesise={"right": 1.0}
    )
    return Stage(id="s", folder=folder, seed=0, root=folder, inputs=inputs, data={"sums": sums})


def sft(policy, **fields):
    training = {"steps": 1, "batch": 2, "learning_rate": 1e-3, "data": "sums"}
    return SftStage.model_validate({"id": "s", "kind": "sft", "policy": policy, **training, **fields})


def test_a_stage_trains_a_longer_context_on_an_earlier_stages_policy(tmp_path):
    save_policy(load_policy(PolicyConfig(**TINY)), tmp_path / "x")
    config = sft({"from": "x", "rope": {"factor": 8}}, max_length=4096)
    run_sft(config, stage_in(tmp_path / "s", {"x": tmp_path / "x"}))
    trained = load_policy(PolicyConfig(model=str(tmp_path / "s/output")))
    assert trained.model.config.max_position_embeddings == 4096
    assert torch.equal(frequencies(trained.model)[0], frequencies(rescaled(8).model)[0])


def test_sequences_beyond_the_context_are_refused_before_training(tmp_path):
    with pytest.raises(UserError, match="max_length is 513 tokens and the context of tiny is 512"):
        run_sft(sft(TINY, max_length=513), stage_in(tmp_path / "s", {}))
    with pytest.raises(UserError, match="context of tiny is 4096"):
        run_sft(sft({**TINY, "rope": {"factor": 8}}, max_length=4097), stage_in(tmp_path / "s", {}))
