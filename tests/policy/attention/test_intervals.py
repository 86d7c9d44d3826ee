"""Intervals made from transformers' mask arguments, against transformers' own dense mask."""

import pytest
import torch
from transformers import Gemma3ForCausalLM
from transformers.masking_utils import (
    and_masks,
    causal_mask_function,
    packed_sequence_mask_function,
    sdpa_mask,
    sliding_window_causal_mask_function,
)

from benchmarks.attention import causal_intervals
from gemsmith.policy.attention.attention import register
from gemsmith.policy.attention.intervals import Intervals, intervals_or_mask


def same_as_transformers(**arguments):
    """Intervals of the arguments, checked entry by entry where the query is no padding."""
    found = intervals_or_mask(**arguments)
    assert isinstance(found, Intervals)
    dense = sdpa_mask(**{**arguments, "allow_is_causal_skip": False})
    sees = (found.hi_BT > found.lo_BT)[:, None, :, None]
    assert torch.equal(found.dense(arguments["kv_length"]) & sees, dense & sees)
    return found


@pytest.mark.parametrize("window", [None, 1, 3, 12])
def test_causal_and_sliding(window):
    function = causal_mask_function if window is None else sliding_window_causal_mask_function(window)
    found = same_as_transformers(batch_size=2, q_length=9, kv_length=9, mask_function=function, local_size=window)
    assert found.plain == (window is None or window >= 9)
    expected = causal_intervals(2, 9, 9, window)
    assert torch.equal(found.lo_BT, expected.lo_BT) and torch.equal(found.hi_BT, expected.hi_BT)


@pytest.mark.parametrize("window", [None, 3])
def test_packed_documents(window):
    documents = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2], [0, 1, 1, 1, 1, 1, 1, 2, 2]])
    base = causal_mask_function if window is None else sliding_window_causal_mask_function(window)
    function = and_masks(base, packed_sequence_mask_function(documents))
    found = same_as_transformers(batch_size=2, q_length=9, kv_length=9, mask_function=function, local_size=window)
    assert not found.plain
    if window is None:
        assert found.lo_BT[0].tolist() == [0, 0, 0, 3, 3, 5, 5, 5, 5]


@pytest.mark.parametrize("window", [None, 3])
def test_padding_on_either_side(window):
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0], [0] * 7]).bool()
    function = causal_mask_function if window is None else sliding_window_causal_mask_function(window)
    found = same_as_transformers(
        batch_size=4, q_length=7, kv_length=7, mask_function=function, local_size=window, attention_mask=mask
    )
    assert ((found.hi_BT > found.lo_BT) == mask).all()  # padding sees nothing, all else sees itself
    assert not found.plain


@pytest.mark.parametrize(("kv_offset", "window"), [(0, None), (3, 4)])
def test_queries_that_follow_a_cache(kv_offset, window):
    mask = torch.ones(2, 10).bool()
    mask[0, :4] = False
    function = causal_mask_function if window is None else sliding_window_causal_mask_function(window)
    same_as_transformers(
        batch_size=2,
        q_length=4,
        kv_length=10 - kv_offset,
        q_offset=6,
        kv_offset=kv_offset,
        mask_function=function,
        local_size=window,
        attention_mask=mask,
    )


def test_what_is_no_interval_stays_a_dense_mask():
    gap = torch.tensor([[1, 1, 0, 1, 1]]).bool()
    assert isinstance(intervals_or_mask(1, 5, 5, attention_mask=gap), torch.Tensor)
    both_ways = intervals_or_mask(1, 5, 5, mask_function=lambda b, h, q, k: (q - k).abs() < 2)
    assert isinstance(both_ways, torch.Tensor) and both_ways[0, 0, 1, 2]


def test_image_blocks_reach_the_dense_path(tiny):
    from transformers.masking_utils import create_causal_mask

    tiny.model.set_attn_implementation(register())
    block_ids = torch.tensor([[-1] * 6 + [0] * 5 + [-1] * 9])
    mask = create_causal_mask(
        tiny.model.config, torch.zeros(1, 20, 128), torch.ones(1, 20), None, block_sequence_ids=block_ids
    )
    assert isinstance(mask, torch.Tensor) and mask[0, 0, 6, 10] and not mask[0, 0, 5, 6]


def test_a_model_hands_intervals_to_its_layers(tiny, kernel, monkeypatch):
    from gemsmith.policy.attention import attention

    seen = []
    original = attention.attention_over
    monkeypatch.setattr(attention, "attention_over", lambda *a: seen.append(a[3]) or original(*a))
    assert isinstance(tiny.model, Gemma3ForCausalLM)
    tiny.model.set_attn_implementation(register())
    tiny.model(input_ids=torch.arange(3, 43)[None], use_cache=False)
    assert len(seen) == 6 and all(isinstance(one, Intervals) for one in seen)
    assert [one.plain for one in seen] == [False] * 5 + [True]  # window 16 of 40 tokens; the last layer is global
