"""The registered attention inside a model: equal to transformers' eager path, whichever path a shape takes."""

import warnings

import pytest
import torch

from gemsmith.policy.attention import attention
from gemsmith.policy.attention.attention import implementation, register
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy


def test_names():
    assert implementation("auto") == implementation("fused") == "gemsmith"
    assert implementation("eager") == "eager" and implementation("sdpa") == "sdpa"


@pytest.fixture
def no_kernel(monkeypatch):
    monkeypatch.setattr(attention, "load_kernel", lambda: None)
    attention._warn_once.cache_clear()
    yield
    attention._warn_once.cache_clear()


def loss_and_gradients(model, ids, mask=None):
    model.zero_grad()
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    keep = torch.ones_like(ids) if mask is None else mask
    loss = (logits.logsumexp(-1) * keep).sum() / keep.sum()
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])


def batch(tokens):
    ids = torch.randint(3, 500, (2, tokens), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, : tokens // 4] = 0
    return ids, mask


def agrees_with_eager(tiny, tokens):
    ids, mask = batch(tokens)
    tiny.model.set_attn_implementation("eager")
    expected, slopes = loss_and_gradients(tiny.model, ids, mask)
    tiny.model.set_attn_implementation(register())
    found, found_slopes = loss_and_gradients(tiny.model, ids, mask)
    assert found == pytest.approx(expected, abs=1e-5)
    assert (found_slopes - slopes).abs().max() < 1e-5 * slopes.abs().max().clamp(min=1)


def test_training_with_the_kernel_equals_the_eager_path(tiny, kernel):
    agrees_with_eager(tiny, 90)


def test_training_without_a_kernel_equals_the_eager_path(tiny, no_kernel, monkeypatch):
    monkeypatch.setattr(attention, "SHORT", 40 * 40)
    with pytest.warns(UserWarning, match="`gemsmith build`"):
        agrees_with_eager(tiny, 90)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agrees_with_eager(tiny, 90)  # warned once


def test_short_sequences_without_a_kernel_need_no_warning(tiny, no_kernel):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agrees_with_eager(tiny, 90)


def test_gradient_checkpointing_changes_nothing(tiny, kernel):
    tiny.model.set_attn_implementation(register())
    ids, mask = batch(60)
    expected, slopes = loss_and_gradients(tiny.model, ids, mask)
    tiny.model.gradient_checkpointing_enable()
    tiny.model.train()
    found, found_slopes = loss_and_gradients(tiny.model, ids, mask)
    assert found == expected and torch.equal(found_slopes, slopes)


def test_decoding_with_a_cache_equals_one_forward_pass(tiny):
    tiny.model.set_attn_implementation(register())
    ids, _ = batch(50)
    with torch.no_grad():
        whole = tiny.model(input_ids=ids, use_cache=False).logits
        first = tiny.model(input_ids=ids[:, :30], use_cache=True)
        middle = tiny.model(input_ids=ids[:, 30:42], past_key_values=first.past_key_values, use_cache=True)
        last = tiny.model(input_ids=ids[:, 42:43], past_key_values=middle.past_key_values, use_cache=True)
    assert torch.allclose(torch.cat([first.logits, middle.logits, last.logits], 1), whole[:, :43], atol=1e-4)


def test_attention_dropout_takes_the_torch_path_with_a_warning(tiny, monkeypatch):
    monkeypatch.setattr(attention, "SHORT", 0)
    attention._warn_once.cache_clear()
    tiny.model.set_attn_implementation(register())
    tiny.model.config.attention_dropout = 0.1
    for layer in tiny.model.model.layers:
        layer.self_attn.attention_dropout = 0.1
    tiny.model.train()
    ids, _ = batch(40)
    with pytest.warns(UserWarning, match="dropout is above 0"):
        first = tiny.model(input_ids=ids, use_cache=False).logits
    assert not torch.equal(first, tiny.model(input_ids=ids, use_cache=False).logits)


def test_a_saved_policy_loads_in_transformers_without_our_attention(tiny, tmp_path):
    from transformers import Gemma3ForCausalLM

    from gemsmith.policy.loading.load import save_policy

    policy = load_policy(PolicyConfig(model="tiny"))
    assert policy.model.config._attn_implementation == "gemsmith"
    save_policy(policy, tmp_path / "out")
    assert "gemsmith" not in (tmp_path / "out" / "config.json").read_text()
    assert Gemma3ForCausalLM.from_pretrained(tmp_path / "out").config._attn_implementation == "sdpa"
