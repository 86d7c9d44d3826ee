import importlib.util

import pytest
import torch
from transformers import Gemma3ForCausalLM

from gemsmith.contracts.errors import RunError
from gemsmith.export import llama_cpp
from gemsmith.export.gguf_model import write_gguf
from gemsmith.export.llama_cpp import ask_llama_cpp
from gemsmith.export.proof import sample_sequences
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.loading.rope import rescale_context
from gemsmith.policy.loading.tiny import tiny_config, tiny_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.quantised import Scheme

installed = pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is not installed")


@pytest.fixture
def policy():
    """With heads of 256, as every Gemma 3 has: llama.cpp scales queries by that."""
    config = tiny_config()
    config.head_dim = 256
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Policy(Gemma3ForCausalLM(config).eval(), tiny_policy().tokenizer)


def written(policy, path, kind="f16"):
    """The policy in a file, and as transformers reads it."""
    write_gguf(policy, path, Scheme(kind, "f16"), "model")
    return load_policy(PolicyConfig(model=str(path), dtype="float32"))


@installed
@pytest.mark.parametrize(("kind", "mean"), [("f16", 0.002), ("q8_0", 0.03), ("q4_0", 0.03)])
def test_llama_cpp_computes_what_the_files_weights_give(policy, tmp_path, kind, mean):
    reloaded = written(policy, tmp_path / "model.gguf", kind)
    found = ask_llama_cpp(tmp_path / "model.gguf", reloaded, sample_sequences(reloaded, 0))
    assert found["run"]
    assert 0 < found["mean_gap"] < mean
    assert found["gap"] < 10 * mean
    assert found["compared"] > 500


@installed
def test_llama_cpp_takes_a_longer_context_from_the_file(policy, tmp_path):
    rescale_context(policy.model, 4.0)
    reloaded = written(policy, tmp_path / "model.gguf")
    found = ask_llama_cpp(tmp_path / "model.gguf", reloaded, sample_sequences(reloaded, 0))
    assert found["mean_gap"] < 0.002


@installed
def test_another_model_in_the_file_is_found(policy, tmp_path):
    reloaded = written(policy, tmp_path / "model.gguf")
    sequences = sample_sequences(reloaded, 0)
    with torch.no_grad():
        reloaded.model.model.norm.weight += 1  # twice what is multiplied by
    with pytest.raises(RunError, match=r"model.gguf as another model: .* 10 likeliest entries differ by 0\.\d+"):
        ask_llama_cpp(tmp_path / "model.gguf", reloaded, sequences)


@installed
def test_a_file_that_llama_cpp_cannot_load_is_an_error_with_its_words(policy, tmp_path):
    path = tmp_path / "model.gguf"
    reloaded = written(policy, path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(RunError, match=r"llama.cpp ended with -?\d+ over .*model.gguf: .*not within the file bounds"):
        ask_llama_cpp(path, reloaded, sample_sequences(reloaded, 0))


@installed
def test_an_answer_that_does_not_come_is_not_waited_for_without_end(policy, tmp_path, monkeypatch):
    reloaded = written(policy, tmp_path / "model.gguf")
    monkeypatch.setattr(llama_cpp, "LIMIT", 0.01)
    with pytest.raises(RunError, match=r"did not answer for .*model.gguf within 0.01 s"):
        ask_llama_cpp(tmp_path / "model.gguf", reloaded, sample_sequences(reloaded, 0))


def test_a_policy_that_llama_cpp_would_scale_otherwise_is_not_shown_to_it(tmp_path):
    reloaded = written(tiny_policy(), tmp_path / "model.gguf")
    found = ask_llama_cpp(tmp_path / "model.gguf", reloaded, sample_sequences(reloaded, 0))
    assert found == {"run": False, "reason": "it scales queries by the head size, 32, and the policy by 256"}
