import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType

from gemsmith.weights.quantise import (
    SFP8_MIN,
    fault_of_width,
    int4_channel,
    packed,
    q4_0,
    quantised,
    sfp8_nearest,
    straight_through,
    ties_spread,
)

FORMATS = ("int4_channel", "q4_0", "sfp8", "q8_0", "f16")
# With the steps: 16 bits for each block. A channel's step is one for thousands of weights, and is not counted.
BITS = {
    "int4_channel": 4.0,
    "q4_0": 4.0 + 16 / 32,
    "sfp8": 8.0,
    "q8_0": 8.0 + 16 / 32,
    "f16": 16.0,
}


def weights(seed: int = 0, rows: int = 64, width: int = 512, scale: float = 0.05) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * scale


def relative_error(tensors, format):
    """Root of the squared errors' sum over that of the squared weights'."""
    gap = sum(float((quantised(each, format).double() - each.double()).square().sum()) for each in tensors)
    return (gap / sum(float(each.double().square().sum()) for each in tensors)) ** 0.5


def test_int4_of_a_row_is_whole_steps_of_a_seventh_of_its_largest():
    row = torch.tensor([[7.0, -3.4, 0.6, 0.5, -7.0, 0.0]])  # a step of 7 / 7 = 1; a half goes to the even 0
    assert int4_channel(row).tolist() == [[7.0, -3.0, 1.0, 0.0, -7.0, 0.0]]


def test_q4_0_takes_its_step_from_the_largest_element_with_its_sign():
    block = torch.zeros(1, 32)
    block[0, :4] = torch.tensor([-8.0, 8.0, 3.4, -0.6])  # of two that are as large the first: step -(-8) / 8 = 1
    assert q4_0(block)[0, :5].tolist() == [-8.0, 7.0, 3.0, -1.0, 0.0]
    assert q4_0(-block)[0, :5].tolist() == [8.0, -7.0, -3.0, 1.0, 0.0]


def test_sfp8_has_128_numbers_from_0_to_1_875():
    sweep = torch.cat([torch.logspace(-25, 1.5, 200_001, base=2.0), torch.zeros(1)])
    codes = sfp8_nearest(sweep).unique()
    assert len(codes) == 8 * 8 + 16 * 4  # exponents -7 to 0 with 3 bits, -23 to -8 with 2; 0 in place of 2^-23
    assert codes[0] == 0.0
    assert codes[1] == SFP8_MIN == 1.25 * 2.0**-23
    assert codes[-1] == 1.875
    assert torch.equal(sfp8_nearest(-codes), -codes)


def test_sfp8_is_off_by_5_9_percent_at_most_above_2_to_the_minus_7_and_by_11_1_below():
    large, small = torch.linspace(2.0**-7, 1.875, 400_001), torch.logspace(-22, -7, 400_001, base=2.0)[:-1]
    assert ((sfp8_nearest(large) - large).abs() / large).max() == pytest.approx(1 / 17, abs=1e-4)  # between 16 and 18
    assert ((sfp8_nearest(small) - small).abs() / small).max() == pytest.approx(1 / 9, abs=1e-4)  # between 8 and 10


@pytest.mark.parametrize(("format", "expected"), [("int4_channel", 0.141), ("q4_0", 0.086), ("sfp8", 0.026)])
def test_errors_on_gaussian_weights_are_the_known_ones(format, expected):
    assert relative_error([weights(rows=256, width=1024)], format) == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize(("format", "expected"), [("int4_channel", 0.311), ("q4_0", 0.115), ("sfp8", 0.026)])
def test_errors_on_heavy_tails_are_the_known_ones(format, expected):
    torch.manual_seed(0)
    tails = torch.distributions.StudentT(4.0).sample((256, 1024))
    assert relative_error([tails], format) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("scale", [1e-6, 0.05, 300.0])
def test_what_is_on_the_grid_stays_there(format, scale):
    once = quantised(weights(scale=scale), format)
    assert torch.equal(quantised(once, format), once)
    assert not torch.equal(once, weights(scale=scale))


@pytest.mark.parametrize("format", FORMATS)
def test_a_row_of_zeros_stays_zero(format):
    assert torch.equal(quantised(torch.zeros(2, 64), format), torch.zeros(2, 64))


@pytest.mark.parametrize("format", FORMATS)
def test_rows_are_quantised_alike_alone_and_together(format):
    whole = weights()
    assert torch.equal(quantised(whole, format)[7], quantised(whole[7], format))


@pytest.mark.parametrize(("format", "kind"), [("q4_0", "Q4_0"), ("q8_0", "Q8_0"), ("f16", "F16")])
def test_bytes_are_those_of_the_gguf_package_and_mean_the_same_numbers(format, kind):
    kind = GGMLQuantizationType[kind]
    whole = torch.cat([weights(), torch.zeros(1, 512), weights(scale=1e-7), weights(scale=5e-37), weights(scale=1e3)])
    whole[3, :32] = torch.tensor([0.5, -0.5]).repeat(16)  # ties of magnitude
    whole[4, :32] = torch.arange(32) * 0.5  # halves in between
    ours = packed(whole, format)
    theirs = gguf.quantize(whole.numpy(), kind)
    assert ours.dtype == theirs.dtype
    assert np.array_equal(ours, theirs)
    assert np.array_equal(gguf.dequantize(ours, kind), quantised(whole, format).numpy())
    assert ours.nbytes * 8 == BITS[format] * whole.numel()


def test_the_gradient_passes_straight_through_to_the_quantised_value():
    weight = weights(rows=2, width=32).requires_grad_()
    seen = straight_through(weight, "q4_0")
    assert torch.equal(seen, quantised(weight, "q4_0"))
    (seen * torch.arange(64.0).reshape(2, 32)).sum().backward()
    assert torch.equal(weight.grad, torch.arange(64.0).reshape(2, 32))


def test_widths_that_no_block_divides_have_a_fault():
    assert fault_of_width(640, "q4_0") is None
    assert fault_of_width(100, "sfp8") is None
    assert fault_of_width(100, "q4_0") == "is 100 wide, and q4_0 holds blocks of 32: 100 is not a multiple of 32"


def test_bfloat16_weights_are_computed_in_float32_and_come_back_as_they_were():
    assert quantised(weights().bfloat16(), "sfp8").dtype == torch.bfloat16


def test_weights_of_a_five_bit_file_are_half_way_between_codes_until_they_are_spread_and_round_as_before():
    five_bits = gguf.quants.quantize(weights().numpy(), GGMLQuantizationType.Q5_0)
    tied = torch.from_numpy(gguf.quants.dequantize(five_bits, GGMLQuantizationType.Q5_0))
    spread = ties_spread(tied, "q4_0", torch.Generator().manual_seed(0))
    assert torch.equal(q4_0(spread), q4_0(tied))
    moved = spread != tied
    assert 0.4 < moved.float().mean() < 0.5  # every other code: the odd ones of five bits

    def changed(weight):  # by a step of training: at 0.05, a step of the grid is about 0.017
        return (q4_0(weight + 1e-6) - q4_0(weight)).abs().gt(1e-3).float().mean().item()

    assert changed(tied) > 0.15
    assert changed(spread) < 1e-3
    place = ((spread - q4_0(tied)) / (tied - q4_0(tied)))[moved]
    assert torch.histc(place, 4, 0.0, 1.0).div(len(place)).tolist() == pytest.approx([0.25] * 4, abs=0.02)


@pytest.mark.parametrize("format", FORMATS)
def test_weights_that_were_never_rounded_are_hardly_spread(format):
    weight = weights()
    spread = ties_spread(weight, format, torch.Generator().manual_seed(0))
    assert (spread != weight).float().mean() < 0.003  # within 0.001 of a step of either side of a middle
