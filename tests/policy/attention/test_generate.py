"""transformers' `generate` with the attention of this project gives what eager attention gives, with every cache."""

from typing import Any

import pytest
import torch

from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.policy import Policy

LENGTHS = (20, 5)  # above and below the number of queries from which on masks are intervals; the window is 16


@pytest.fixture(scope="module")
def policies() -> tuple[Policy, Policy]:
    return load_policy(PolicyConfig(model="tiny")), load_policy(PolicyConfig(model="tiny", attention="eager"))


def answered(policy: Policy, length: int, **options: Any) -> torch.Tensor:
    """Return the greedy answer to a left-padded batch of two prompts."""
    ids_BT = torch.arange(10, 10 + 2 * length).view(2, length)
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[1, :3] = 0
    fixed: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    return policy.model.generate(input_ids=ids_BT, attention_mask=mask_BT, **fixed, **options)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(
    "options",
    [
        {"cache_implementation": "static"},
        {"cache_implementation": "hybrid"},
        {"cache_implementation": "dynamic"},
        {"use_cache": False},
        {"num_beams": 3},
    ],
    ids=str,
)
def test_generate_with_every_cache_gives_what_eager_attention_gives(
    policies: tuple[Policy, Policy], options: dict[str, Any], length: int
) -> None:
    ours, eager = (answered(policy, length, **options) for policy in policies)
    assert torch.equal(ours, eager)


def test_prompt_lookup_gives_what_eager_attention_gives(policies: tuple[Policy, Policy]) -> None:
    ids_1T = torch.tensor([[10, 11, 12, 13] * 5])
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    found = [policy.model.generate(ids_1T, prompt_lookup_num_tokens=3, **options) for policy in policies]
    assert torch.equal(*found)
