"""Policies that the tests of this room share."""

import pytest
import torch

from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.policy import Policy

pytest.register_assert_rewrite("tests.policy.samplers.contract")


@pytest.fixture
def tiny() -> Policy:
    return tiny_policy(seed=3)


@pytest.fixture
def decided() -> Policy:
    """A tiny policy that depends on what it attends to, with logits far enough apart for rounding not to matter.

    (A fresh one repeats its last token: the tied embedding outweighs its layers.)
    """
    policy = tiny_policy(seed=3)
    with torch.no_grad():
        for layer in policy.model.model.layers:
            layer.self_attn.q_norm.weight.fill_(3.0)
            layer.self_attn.k_norm.weight.fill_(3.0)
            layer.post_attention_layernorm.weight.fill_(2.0)
        policy.model.model.norm.weight.fill_(3.0)
    return policy


@pytest.fixture
def prompts() -> list[list[int]]:
    """Prompts of 5 to 41 tokens: some shorter, some longer than the window of 16."""
    generator = torch.Generator().manual_seed(0)
    lengths = [5, 41, 17, 23, 9]
    return [[2, *torch.randint(363, 512, (length - 1,), generator=generator).tolist()] for length in lengths]
