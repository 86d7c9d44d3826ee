import copy

import pytest
import torch

from gemsmith.contracts.errors import UserError
from gemsmith.policy.head.logprobs import token_logprobs, weighted_logprobs
from gemsmith.policy.loading.tiny import tiny_config, tiny_policy
from gemsmith.policy.quantised import (
    MARK,
    Scheme,
    check_widths,
    fake_quantised,
    quantise_in_place,
    read_mark,
    write_mark,
)

PROMPTS, COMPLETIONS = [[2, 105, 370], [2, 105, 371, 372]], [[373, 374, 106], [375, 106]]
SCHEMES = [Scheme("q4_0", "f16"), Scheme("int4_channel", "q8_0"), Scheme("sfp8", "sfp8")]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_inside_the_model_computes_what_the_quantised_one_does(scheme):
    policy = tiny_policy()
    rounded = copy.deepcopy(policy.model)
    quantise_in_place(rounded, scheme)
    before, _ = token_logprobs(policy.model, PROMPTS, COMPLETIONS)
    expected, _ = token_logprobs(rounded, PROMPTS, COMPLETIONS)
    ids = torch.tensor(PROMPTS[1:])
    with fake_quantised(policy.model, scheme):
        found, _ = token_logprobs(policy.model, PROMPTS, COMPLETIONS)
        assert torch.equal(policy.model(ids).logits, rounded(ids).logits)
    after, _ = token_logprobs(policy.model, PROMPTS, COMPLETIONS)
    assert torch.equal(found, expected)
    assert not torch.equal(found, before)
    assert torch.equal(after, before)


def test_gradients_are_those_at_the_quantised_weights_for_every_parameter():
    policy, scheme = tiny_policy(), Scheme("q4_0", "q4_0")
    rounded = copy.deepcopy(policy.model)
    quantise_in_place(rounded, scheme)
    ones = torch.ones(2)
    weighted_logprobs(rounded, PROMPTS, COMPLETIONS, ones)[0].backward()
    with fake_quantised(policy.model, scheme):
        weighted_logprobs(policy.model, PROMPTS, COMPLETIONS, ones)[0].backward()
    expected = dict(rounded.named_parameters())
    for name, parameter in policy.model.named_parameters():
        assert torch.allclose(parameter.grad, expected[name].grad, atol=1e-6), name
        assert parameter.grad.abs().sum() > 0


def test_on_the_grid_quantising_again_changes_nothing_and_norms_never_moved():
    policy, scheme = tiny_policy(), Scheme("int4_channel", "f16")
    norms = {name: each.clone() for name, each in policy.model.named_parameters() if "norm" in name}
    quantise_in_place(policy.model, scheme)
    once = {name: each.clone() for name, each in policy.model.state_dict().items()}
    quantise_in_place(policy.model, scheme)
    assert all(torch.equal(each, once[name]) for name, each in policy.model.state_dict().items())
    assert all(torch.equal(each, once[name]) for name, each in norms.items())
    assert len(once["model.layers.0.mlp.up_proj.weight"][0].unique()) <= 16


def test_a_policy_too_odd_for_blocks_is_refused_by_the_name_of_its_layer():
    from transformers import Gemma3ForCausalLM

    config = tiny_config()
    config.intermediate_size = 100
    with pytest.raises(UserError, match=r"layers.0.mlp.down_proj is 100 wide, and q4_0 .* 100 .*multiple of 32.* sfp8"):
        check_widths(Gemma3ForCausalLM(config), Scheme("q4_0", "f16"), "use sfp8")


@pytest.mark.parametrize(
    ("scheme", "value", "words"),
    [
        (
            Scheme("q4_0", "f16"),
            530_000.0,
            r"magnitude 5.3e\+05, and q4_0 .* below 5.242e\+05",
        ),  # 65,520 * 8
        (Scheme("q8_0", "f16"), 9e6, r"and q8_0 .* below 8.321e\+06"),  # 65,520 * 127
        (Scheme("f16", "f16"), -65_520.0, r"and f16 .* below 6.552e\+04"),
        (Scheme("sfp8", "f16"), float("nan"), "NaN or infinite"),
        (Scheme("int4_channel", "f16"), float("inf"), "NaN or infinite"),
    ],
)
def test_a_weight_that_a_format_cannot_hold_is_refused_by_name_and_none_is_moved(scheme, value, words):
    policy = tiny_policy()
    with torch.no_grad():
        policy.model.model.layers[2].mlp.up_proj.weight[0, 0] = value
    before = {name: each.clone() for name, each in policy.model.state_dict().items()}
    with pytest.raises(UserError, match=rf"model.layers.2.mlp.up_proj holds a weight .*{words}.*diverged"):
        quantise_in_place(policy.model, scheme)
    assert all(each.equal(before[name]) or value != value for name, each in policy.model.state_dict().items())


def test_the_mark_comes_back_and_a_broken_one_is_refused(tmp_path):
    assert read_mark(tmp_path) is None
    write_mark(tmp_path, Scheme("sfp8", "f16"))
    assert read_mark(tmp_path) == Scheme("sfp8", "f16")
    (tmp_path / MARK).write_text("{}")
    with pytest.raises(UserError, match=r"quantisation.json .*qat"):
        read_mark(tmp_path)
