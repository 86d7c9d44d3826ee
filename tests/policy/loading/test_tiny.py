import torch

from gemsmith.policy.loading.tiny import tiny_config, tiny_policy


def test_sizes_are_a_student_and_a_teacher_three_times_as_large():
    small, large = tiny_policy("small").model.num_parameters(), tiny_policy("large").model.num_parameters()
    assert 1_200_000 < small < 1_500_000
    assert 2.5 < large / small < 3.5


def test_architecture_is_gemma_3s():
    for size in ("small", "large"):
        config = tiny_config(size)
        assert config.layer_types[:6] == ["sliding_attention"] * 5 + ["full_attention"]
        assert config.num_attention_heads % config.num_key_value_heads == 0
        assert config.num_key_value_heads < config.num_attention_heads
        assert config.query_pre_attn_scalar == 256
        assert config.rope_parameters["sliding_attention"]["rope_theta"] == 10_000
        assert config.rope_parameters["full_attention"]["rope_theta"] == 1_000_000
    model = tiny_policy().model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.model.layers[0].self_attn.q_norm is not None


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = tiny_policy(seed=5).model.state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = tiny_policy(seed=5).model.state_dict(), tiny_policy(seed=6).model.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_a_local_layer_does_not_see_beyond_its_window(tiny, prompts):
    """With one layer and a window of 16, position t sees t - 15 to t: a change at 10 reaches 25 and not 26."""
    model = tiny.model.model
    local = tiny.model.config.layer_types.index("sliding_attention")
    model.layers = model.layers[local : local + 1]
    model.config.num_hidden_layers = 1
    ids = torch.tensor([prompts[1]])
    changed = ids.clone()
    changed[0, 10] = 400 if ids[0, 10] != 400 else 401
    with torch.no_grad():
        moved = (model(ids).last_hidden_state - model(changed).last_hidden_state).abs().amax(-1)[0]
    assert moved[10:26].min() > 0
    assert moved[:10].max() == 0 and moved[26:].max() == 0
