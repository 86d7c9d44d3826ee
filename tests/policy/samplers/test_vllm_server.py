"""One server of an exported policy serves all of this module, started by a process that the last test kills."""

import importlib.util
import signal
import subprocess
import sys

import psutil
import pytest
from transformers import AutoModelForCausalLM

from gemsmith.contracts.errors import UserError
from gemsmith.policy.config import PolicyConfig, SamplerConfig, SamplingConfig
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.logprob_mismatch import check_completions, scored
from gemsmith.policy.samplers.server_sampler import ServerSampler
from gemsmith.policy.samplers.vllm_server import serving
from gemsmith.recipes.commands.actions.policy_export import export_policy
from tests.policy.samplers.contract import SamplerContract, repeated

WITHOUT = "vllm is not installed (WITH_VLLM=1 make setup installs it on x86-64 Linux)"
with_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason=WITHOUT)
PARENT = """
import sys
from pathlib import Path
from gemsmith.policy.config import SamplerConfig
from gemsmith.policy.samplers.vllm_server import serving

config = SamplerConfig(backend="server", cache_gib=0.25, timeout=300)
with serving(Path(sys.argv[1]), config, Path(sys.argv[2]), lambda line: None) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """Exports the policy that it is given first, and serves it: the folder, the parent of the server, the address."""
    folder = tmp_path_factory.mktemp("served")
    started = []

    def start(policy):
        if not started:
            save_policy(policy, folder / "policy")
            export_policy(folder / "policy", None, folder / "export")
            command = [sys.executable, "-c", PARENT, str(folder / "export"), str(folder / "log")]
            parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            started.extend([folder / "export", parent, ""])
            started[2] = parent.stdout.readline().strip()
        return started

    yield start
    if started:
        started[1].communicate(timeout=30)


@pytest.fixture
def sampler(serve, decided):
    folder, _, url = serve(decided)
    policy = load_policy(PolicyConfig(model=str(folder)))
    return ServerSampler(policy, SamplingConfig(), SamplerConfig(backend="server", timeout=120), url, print)


@with_vllm
@pytest.mark.slow
class TestServerSampler(SamplerContract):
    """Without what needs an anchor, weights that change, or thousands of requests."""

    test_samples_follow_the_policys_distribution = None
    test_either_end_id_stops_and_is_kept = None
    test_completions_end_one_by_one = None
    test_anchor_weights_sample_and_the_live_ones_come_back = None
    test_an_anchor_that_is_not_there_is_an_error = None


@with_vllm
@pytest.mark.slow
def test_both_end_ids_stop_and_are_kept(sampler, prompts):
    """At temperature 2, the highest that vLLM's server takes, each end id ends some of 400 completions."""
    sampler.config = SamplingConfig(max_tokens=40, temperature=2.0)
    samples = sampler.sample(prompts, 80, seed=2)
    check_completions(samples, sampler.policy, sampler.config)
    assert {1, 106} <= {ids[-1] for ids in samples.ids}
    assert set(samples.finish) == {"stop", "length"}
    assert not any("<eos>" in text or "<end_of_turn>" in text for text in samples.text)


@with_vllm
@pytest.mark.slow
def test_an_export_has_the_log_probabilities_that_transformers_gives_it(serve, sampler, prompts):
    sampler.config = SamplingConfig(max_tokens=24, temperature=1.3, top_k=50)
    samples = sampler.sample(prompts, 4, seed=3)
    plain = AutoModelForCausalLM.from_pretrained(serve(None)[0])
    gap = scored(Policy(plain, sampler.policy.tokenizer), repeated(prompts, 4), samples, sampler.config).gap
    assert gap.tokens > 400
    assert gap.worst < 1e-3


@pytest.mark.slow
@with_vllm
def test_a_folder_that_holds_no_policy_is_an_error_with_the_servers_own_words(tmp_path):
    config = SamplerConfig(backend="server", timeout=120)
    (tmp_path / "empty").mkdir()
    with (
        pytest.raises(UserError, match=r"server ended with 1 before it answered: .*empty"),
        serving(tmp_path / "empty", config, tmp_path / "log", print),
    ):
        pass


def test_without_vllm_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with (
        pytest.raises(UserError, match="WITH_VLLM=1 make setup"),
        serving(tmp_path, SamplerConfig(backend="server"), tmp_path / "log", print),
    ):
        pass


@with_vllm
@pytest.mark.slow
def test_nothing_is_left_of_a_server_whose_parent_is_killed(serve, decided):
    parent = serve(decided)[1]
    started = psutil.Process(parent.pid).children(recursive=True)
    assert len(started) >= 2  # the server and its engine
    parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(started, timeout=15)
    assert not alive
