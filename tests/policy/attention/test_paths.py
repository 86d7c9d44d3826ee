"""Every path over key intervals gives what attention is by definition, with its gradients."""

import itertools

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from benchmarks.attention import causal_intervals
from gemsmith.policy.attention import blockwise
from gemsmith.policy.attention.blockwise import blockwise_attention
from gemsmith.policy.attention.flex import block_mask
from gemsmith.policy.attention.fused import fused_attention, refusal
from gemsmith.policy.attention.intervals import Intervals
from tests.policy.attention.plain import furthest, inputs, plain_attention, with_gradients

SHAPES = [(4, 1, 256), (4, 2, 32), (8, 4, 64), (2, 2, 128), (3, 1, 96)]  # heads, groups, width
WINDOWS = [None, 1, 16, 64, 1000]


def packed(rows, tokens, documents):
    """Documents of the given lengths one after the other in each row; what is left over is padding."""
    lo, hi = torch.zeros(rows, tokens, dtype=torch.int32), torch.zeros(rows, tokens, dtype=torch.int32)
    begin = 0
    for length in documents:
        lo[:, begin : begin + length] = begin
        hi[:, begin : begin + length] = torch.arange(begin + 1, begin + length + 1)
        begin += length
    return Intervals(lo, hi)


def padded(rows, tokens, window):
    """Row 0 is padded on the left, row 1 on the right, and the last row is nothing but padding."""
    intervals = causal_intervals(rows, tokens, tokens, window)
    lo, hi = intervals.lo_BT.clone(), intervals.hi_BT.clone()
    lo[0] = lo[0].clamp(min=tokens // 3)
    hi[0, : tokens // 3] = 0
    hi[1, tokens // 2 :] = 0
    hi[-1] = 0
    return Intervals(lo, hi)


@pytest.fixture(params=["kernel", "blockwise"])
def path(request, monkeypatch):
    """A path over intervals as a function of queries, keys, values, intervals and the scale."""
    if request.param == "blockwise":
        monkeypatch.setattr(blockwise, "QUERIES_AT_ONCE", 64)
        return blockwise_attention
    kernel = request.getfixturevalue("kernel")
    return lambda *tensors: fused_attention(kernel, *tensors)


def differs(path, tensors, intervals, scale=0.07):
    """Return the difference of a path from the definition in float64, output and gradients."""
    mask = intervals.dense(tensors[1].shape[2])
    found = with_gradients(lambda q, k, v: path(q, k, v, intervals, scale), *tensors)
    exact = with_gradients(lambda q, k, v: plain_attention(q, k, v, mask, scale), *(t.double() for t in tensors))
    assert all(torch.isfinite(tensor).all() for tensor in found)
    return furthest(found, exact)


@pytest.mark.parametrize(("shape", "window"), itertools.product(SHAPES, WINDOWS))
def test_causal_and_windowed_attention_is_attention(path, shape, window):
    heads, groups, width = shape
    tensors = inputs(2, heads, groups, 150, width)
    assert differs(path, tensors, causal_intervals(2, 150, 150, window)) < 3e-6


@pytest.mark.parametrize("window", [16, None])
def test_padding_on_either_side_and_rows_of_padding_alone(path, window):
    tensors = inputs(3, 4, 1, 140, 64)
    assert differs(path, tensors, padded(3, 140, window)) < 3e-6


def test_documents_do_not_see_each_other(path):
    tensors = inputs(2, 4, 1, 200, 64)
    intervals = packed(2, 200, [3, 61, 1, 100, 20])
    assert differs(path, tensors, intervals) < 3e-6
    query, key, value, _ = tensors
    out = path(query, key, value, intervals, 0.1)
    alone = path(query[:, :, 65:165], key[:, :, 65:165], value[:, :, 65:165], causal_intervals(2, 100, 100), 0.1)
    assert torch.allclose(out[:, :, 65:165], alone, atol=1e-6)
    assert (out[:, :, 185:] == 0).all()


def test_a_chunk_of_queries_at_the_end_of_a_cache(path):
    tensors = inputs(2, 4, 2, 40, 64, keys=170)
    assert differs(path, tensors, causal_intervals(2, 40, 170, 50)) < 3e-6


def test_large_scores_neither_overflow_nor_lose_the_largest(path):
    query, key, value, grad = inputs(1, 2, 1, 80, 64)
    # scores reach 2,000, where float32 is spaced 1e-4 apart: so far may the weights be off
    assert differs(path, (query * 8, key * 8, value, grad), causal_intervals(1, 80, 80), scale=1.0) < 1e-3


def test_bfloat16_is_as_near_as_its_rounding(kernel):
    half = inputs(2, 4, 1, 150, 64, dtype=torch.bfloat16)
    intervals = causal_intervals(2, 150, 150, 32)
    found = with_gradients(lambda q, k, v: fused_attention(kernel, q, k, v, intervals, 0.1), *half)
    assert all(tensor.dtype == torch.bfloat16 for tensor in found)
    mask = intervals.dense(150)
    exact = with_gradients(lambda q, k, v: plain_attention(q, k, v, mask, 0.1), *(t.double() for t in half))
    assert furthest(found, exact) < 2**-7  # eight bits of fraction, and delta is taken from the rounded output
    # accumulated in float32: the rounded exact output differs in few places, and there by one step
    assert (found[0] != exact[0].bfloat16()).float().mean() < 0.05


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_does_not_matter_and_repeats_are_equal_bits(kernel, threads):
    tensors = inputs(1, 4, 1, 300, 64)
    intervals = causal_intervals(1, 300, 300, 100)
    before = torch.get_num_threads()

    def run():
        return with_gradients(lambda q, k, v: fused_attention(kernel, q, k, v, intervals, 0.1), *tensors)

    try:
        torch.set_num_threads(1)
        single = run()
        torch.set_num_threads(threads)
        first, second = run(), run()
    finally:
        torch.set_num_threads(before)
    assert furthest(first, [tensor.double() for tensor in single]) < 1e-6
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_any_layout_of_the_inputs_gives_the_same(kernel):
    query, key, value, grad = inputs(2, 4, 2, 70, 32)
    intervals = causal_intervals(2, 70, 70, 9)

    def run(q, k, v):
        return fused_attention(kernel, q, k, v, intervals, 0.2)

    usual = with_gradients(run, query, key, value, grad)
    others = with_gradients(run, *(tensor.contiguous() for tensor in (query, key, value, grad)))
    strange = run(query.transpose(2, 3).contiguous().transpose(2, 3), key, value)  # features not side by side
    assert all(torch.equal(one, other) for one, other in zip(usual, others, strict=True))
    assert torch.equal(strange, usual[0])


def test_the_kernel_says_what_it_does_not_take(kernel):
    query, key, *_ = inputs(1, 2, 1, 8, 64)
    assert refusal(kernel, query, key) is None
    assert "float64" in str(refusal(kernel, query.double(), key.double()))
    odd, odd_key, *_ = inputs(1, 2, 1, 8, 20)
    assert "multiples of" in str(refusal(kernel, odd, odd_key))


def test_dropout_keeps_the_mean_and_drops_that_share():
    query, key, _, _ = inputs(1, 1, 1, 600, 32)
    value = torch.ones(1, 1, 600, 32)
    torch.manual_seed(0)
    out = blockwise_attention(query * 0, key, value, causal_intervals(1, 600, 600, 300), 1.0, dropout=0.25)
    # 300 equal weights, each kept with probability 3/4 and scaled by 4/3: standard deviation sqrt(1/3 / 300) = 0.033
    assert out[:, :, 300:].mean().item() == pytest.approx(1.0, abs=0.01)
    assert out[:, :, 300:, 0].std().item() == pytest.approx(0.033, rel=0.2)


@pytest.mark.parametrize("intervals", [causal_intervals(2, 128, 128, 20), packed(2, 128, [50, 60]), padded(3, 128, 16)])
def test_the_gpu_block_mask_means_the_same_intervals(intervals):
    rows = intervals.lo_BT.shape[0]
    query, key, value, _ = inputs(rows, 4, 1, 128, 32)
    with torch.no_grad():
        found = flex_attention(query, key, value, block_mask=block_mask(intervals, 128), scale=0.1, enable_gqa=True)
    expected = plain_attention(query, key, value, intervals.dense(128), 0.1)
    sees = (intervals.hi_BT > intervals.lo_BT)[:, None, :, None]
    assert torch.allclose(torch.where(sees, found, 0.0), expected, atol=1e-5)


def test_the_gpu_block_mask_skips_blocks_outside_of_the_window():
    mask = block_mask(causal_intervals(1, 4096, 4096, 512), 4096)
    assert mask.sparsity() > 80  # 512 + 128 of 4096 keys a block of 128 queries: 84% are never read
