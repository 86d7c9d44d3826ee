"""Sampling ahead returns the same completions as sampling now, and its exceptions are raised."""

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.policy.config import PolicyConfig, SamplingConfig
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.transformers_sampler import TransformersSampler
from gemsmith.policy.weight_set import WeightSet
from gemsmith.rl.rollouts.prefetch import Prefetcher
from tests.messages import raises_facts

PROMPTS = [[2, 100 + i, 120] for i in range(4)]


@pytest.fixture(scope="module")
def tiny() -> Policy:
    return load_policy(PolicyConfig(model="tiny"))


def test_what_was_begun_is_what_would_have_been_drawn(tiny: Policy) -> None:
    prefetcher = Prefetcher(
        TransformersSampler(tiny, SamplingConfig(max_tokens=5), WeightSet(tiny.model)), {"policy": 1, "anchor": 2}
    )
    assert prefetcher.take() is None
    prefetcher.start(PROMPTS, 3, before=4)
    ahead = prefetcher.take()
    assert ahead == prefetcher.sample_now(PROMPTS, 3, before=4) and list(ahead) == ["policy", "anchor"]
    assert ahead != prefetcher.sample_now(PROMPTS, 3, before=0)
    assert prefetcher.take() is None


def test_a_failure_in_the_background_is_raised_where_the_completions_are_taken(tiny: Policy) -> None:
    prefetcher = Prefetcher(TransformersSampler(tiny, SamplingConfig(max_tokens=5)), {"policy": 1})
    prefetcher.start([[2] * 600], 0, before=0)
    with raises_facts(UserError, "context"):
        prefetcher.take()
