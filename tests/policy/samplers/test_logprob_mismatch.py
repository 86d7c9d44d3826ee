"""A sampler that does not have the trainer's weights, or does not end where it must, is found out and named."""

import copy
import dataclasses

import pytest
import torch

from gemsmith.contracts.errors import UserError
from gemsmith.policy.config import SamplerConfig, SamplingConfig
from gemsmith.policy.head.logprobs import sequence_logprobs
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.contract import Samples
from gemsmith.policy.samplers.logprob_mismatch import check, check_completions, scored, suspects_of
from gemsmith.policy.samplers.transformers_sampler import TransformersSampler
from gemsmith.policy.weight_set import WeightSet

PROMPTS = [[2, 100 + i, 120, 140 + i] for i in range(6)]
LIMITS = SamplerConfig()


def drawn_from(policy: Policy, sampling: SamplingConfig) -> Samples:
    return TransformersSampler(policy, sampling).sample(PROMPTS, 1, seed=3)


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(max_tokens=12),
        SamplingConfig(max_tokens=12, temperature=1.4),
        SamplingConfig(max_tokens=12, temperature=0.8, top_k=20, top_p=0.7),
    ],
)
def test_the_trainers_own_samples_have_no_gap(decided: Policy, sampling: SamplingConfig) -> None:
    samples = drawn_from(decided, sampling)
    found = scored(decided, PROMPTS, samples, sampling, batch=4)
    assert found.gap.tokens == sum(map(len, samples.ids))
    assert found.gap.worst < 1e-4
    assert found.gap.sampler == pytest.approx(sum(map(sum, samples.logprobs)), rel=1e-5)
    assert check(found.gap, LIMITS) is None
    assert torch.allclose(found.processed_S, found.drawn_S, atol=1e-3)
    own_S = sequence_logprobs(decided.model, PROMPTS, samples.ids, sampling.temperature)
    assert torch.allclose(found.logprob_S, own_S, atol=1e-4)
    assert torch.allclose(found.logprob_S, found.processed_S) == sampling.untruncated


def test_another_temperature_is_a_gap(decided: Policy) -> None:
    samples = drawn_from(decided, SamplingConfig(max_tokens=12, temperature=1.5))
    found = scored(decided, PROMPTS, samples, SamplingConfig(max_tokens=12))
    with pytest.raises(UserError, match=r"does not compute with the trainer's weights.*by the trainer.*temperature"):
        check(found.gap, LIMITS)


def test_a_token_that_the_trainer_cannot_draw_is_an_infinite_gap(decided: Policy) -> None:
    samples = drawn_from(decided, SamplingConfig(max_tokens=12, temperature=3.0))
    found = scored(decided, PROMPTS, samples, SamplingConfig(max_tokens=12, top_k=2))
    assert found.gap.worst == float("inf")
    with pytest.raises(UserError, match="inf at worst"):
        check(found.gap, LIMITS)


@torch.no_grad()
def test_stale_weights_are_called_stale(decided: Policy) -> None:
    initial = WeightSet(decided.model)
    samples = drawn_from(decided, SamplingConfig(max_tokens=12))
    torch.manual_seed(0)
    for parameter in decided.model.parameters():
        parameter += 0.3 * parameter.std() * torch.randn_like(parameter)
    sampling = SamplingConfig(max_tokens=12)
    gap = scored(decided, PROMPTS, samples, sampling).gap
    suspects = suspects_of(decided, PROMPTS, samples, sampling, {"the initial policy": initial, "the anchor": None})
    with pytest.raises(UserError, match=r"stale weights.*the initial policy"):
        check(gap, LIMITS, suspects)


@torch.no_grad()
def test_a_permuted_name_is_a_gap(decided: Policy) -> None:
    permuted = copy.deepcopy(decided)
    layers = permuted.model.model.layers
    layers[0].self_attn.q_proj, layers[1].self_attn.q_proj = layers[1].self_attn.q_proj, layers[0].self_attn.q_proj
    sampling = SamplingConfig(max_tokens=12)
    gap = scored(decided, PROMPTS, drawn_from(permuted, sampling), sampling).gap
    with pytest.raises(UserError, match="arrived under another name"):
        check(gap, LIMITS)


def test_between_warning_and_limit_the_run_goes_on(decided: Policy) -> None:
    sampling = SamplingConfig(max_tokens=12)
    samples = drawn_from(decided, sampling)
    shifted = dataclasses.replace(samples, logprobs=[[x - 0.1 for x in row] for row in samples.logprobs])
    warning = check(scored(decided, PROMPTS, shifted, sampling).gap, LIMITS, weights="anchor")
    assert warning is not None and "0.1 nats per token" in warning and "from the anchor" in warning


def test_completions_end_where_they_must(decided: Policy) -> None:
    sampling = SamplingConfig(max_tokens=12)
    samples = drawn_from(decided, sampling)
    check_completions(samples, decided, sampling)
    for end in decided.end_ids:
        beyond = Samples([[100, end, 101]], [[-1.0] * 3], [""], ["length"])
        with pytest.raises(UserError, match=rf"does not stop at the end token .*\({end}\)"):
            check_completions(beyond, decided, sampling)
    with pytest.raises(UserError, match="it has 2 of max_tokens = 12"):
        check_completions(Samples([[100, 101]], [[-1.0] * 2], [""], ["stop"]), decided, sampling)
