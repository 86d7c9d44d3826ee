"""One attention layer of Gemma 3 270M, forward and backward: our kernel against torch's scaled_dot_product_attention.

`python -m benchmarks.attention [--quick] [--json PATH]`; float32 on a CPU, on the threads that torch takes. The rival
of a local layer is sdpa with the dense mask that transformers gives it, that of a global layer is sdpa's causal path.
Contenders follow each other in every round. `floor` is the least time for the products inside of the mask, at the speed
that large products reach in the same run. Memory is what a layer needs beyond its inputs, in a process of its own.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import repeat_kv

from benchmarks.memory import in_own_process, peak_of
from benchmarks.results import Row, print_rows, write_rows
from gemsmith.policy.attention.blockwise import blockwise_attention
from gemsmith.policy.attention.build import build_kernel, load_kernel
from gemsmith.policy.attention.fused import fused_attention
from gemsmith.policy.attention.intervals import Intervals

HEADS, GROUPS, WIDTH, WINDOW, SCALE = 4, 1, 256, 512, 256**-0.5
FLOPS = 14 * WIDTH  # a query-key pair and head: two products forward, five backward, 2 x width each
Layer = Callable[[Tensor, Tensor, Tensor], Tensor]


def causal_intervals(
    batch: int, queries: int, keys: int, window: int | None = None, device: torch.device | str = "cpu"
) -> Intervals:
    """Intervals of a batch without padding whose last query stands at the last key.

    Args:
        batch: B, rows.
        queries: T, queries a row.
        keys: keys a row; at least T.
        window: keys that a query sees, its own among them; none: all up to its own.
        device: of the tensors.
    """
    end_T = torch.arange(keys - queries + 1, keys + 1, dtype=torch.int32, device=device)
    lo_T = torch.zeros_like(end_T) if window is None else (end_T - window).clamp(min=0)
    plain = queries == keys and (window is None or keys <= window)
    return Intervals(lo_T.expand(batch, -1).contiguous(), end_T.expand(batch, -1).contiguous(), plain)


def contender(name: str, kind: str, tokens: int) -> Layer:
    """Return a layer of `kind` (local, global) as a function of queries, keys and values."""
    intervals = causal_intervals(1, tokens, tokens, WINDOW if kind == "local" else None)
    if name == "kernel":
        kernel = load_kernel()
        assert kernel is not None
        return lambda q, k, v: fused_attention(kernel, q, k, v, intervals, SCALE)
    if name == "blockwise":
        return lambda q, k, v: blockwise_attention(q, k, v, intervals, SCALE)
    return _sdpa(intervals, kind, tokens)


def _sdpa(intervals: Intervals, kind: str, tokens: int) -> Layer:
    mask = intervals.dense(tokens) if kind == "local" else None

    def layer(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return scaled_dot_product_attention(
            query,
            repeat_kv(key, HEADS // GROUPS),
            repeat_kv(value, HEADS // GROUPS),
            attn_mask=mask,
            is_causal=mask is None,
            scale=SCALE,
        )

    return layer


def inputs(tokens: int) -> list[Tensor]:
    """Return queries, keys, values and the gradient of the output, with the strides that projections give."""
    torch.manual_seed(0)
    heads = (HEADS, GROUPS, GROUPS, HEADS)
    return [torch.randn(1, tokens, number, WIDTH).transpose(1, 2) for number in heads]


def run(layer: Layer, tensors: list[Tensor]) -> None:
    query, key, value, grad = tensors
    leaves = [tensor.detach().requires_grad_() for tensor in (query, key, value)]
    layer(*leaves).backward(grad)


def product_rate() -> float:
    """FLOP a second of large float32 products, the best of several."""
    a, b = torch.randn(2, 1024, 1024)
    best = 0.0
    for _ in range(8):
        begun = time.perf_counter()
        for _ in range(8):
            a @ b
        best = max(best, 8 * 2 * 1024**3 / (time.perf_counter() - begun))
    return best


def pairs(kind: str, tokens: int) -> int:
    intervals = causal_intervals(1, tokens, tokens, WINDOW if kind == "local" else None)
    return int((intervals.hi_BT - intervals.lo_BT).sum())


def speed(kind: str, tokens: int, rounds: int, rate: float) -> list[Row]:
    """Milliseconds of the kernel beside sdpa's, the block-wise path's and the floor."""
    tensors = inputs(tokens)
    layers = {name: contender(name, kind, tokens) for name in ("kernel", "sdpa", "blockwise")}
    found: dict[str, list[float]] = {name: [] for name in layers}
    for number in range(-1, rounds):
        for name, layer in layers.items():
            begun = time.perf_counter()
            run(layer, tensors)
            if number >= 0:
                found[name].append(1e3 * (time.perf_counter() - begun))
    median = {name: statistics.median(values) for name, values in found.items()}
    spread = (max(found["kernel"]) - min(found["kernel"])) / 2
    floor = 1e3 * pairs(kind, tokens) * HEADS * FLOPS / rate
    rival = "sdpa, dense mask" if kind == "local" else "sdpa, causal"
    label = f"{kind} {tokens}"
    return [
        Row(label, median["kernel"], "ms", rival, median["sdpa"], spread),
        Row(label, median["kernel"], "ms", "FLOP floor", floor, spread),
        Row(f"{label}, no kernel", median["blockwise"], "ms", rival, median["sdpa"]),
    ]


def memory(kind: str, tokens: int, dense: bool) -> Row:
    """Peak memory of the kernel beside sdpa's, or beside its own at half the length."""
    kernel = in_own_process("benchmarks.attention", "--peak", f"kernel {kind} {tokens}") / 2**20
    if dense:
        rival, name = in_own_process("benchmarks.attention", "--peak", f"sdpa {kind} {tokens}") / 2**20, "sdpa"
    else:
        rival = in_own_process("benchmarks.attention", "--peak", f"kernel {kind} {tokens // 2}") / 2**20
        name = f"itself at {tokens // 2}"
    return Row(f"memory, {kind} {tokens}", kernel, "MiB", name, rival)


def _print_peak(asked: str) -> None:
    name, kind, tokens = asked.split()
    tensors, layer = inputs(int(tokens)), contender(name, kind, int(tokens))
    small = contender(name, kind, 64)
    run(small, inputs(64))
    print(peak_of(lambda: run(layer, tensors)))


def main() -> None:
    """Run what the command line asks for, print the rows, and write them where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="three lengths, three rounds: seconds")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    build_kernel(lambda line: None)
    if options.peak:
        _print_peak(options.peak)
        return
    rate = product_rate()
    print(f"large float32 products: {rate / 1e9:.0f} GFLOP/s on {torch.get_num_threads()} threads")
    lengths = [512, 1024, 2048] if options.quick else [512, 1024, 2048, 4096, 8192]
    rows = []
    for kind in ("local", "global"):
        for tokens in lengths:
            rows += speed(kind, tokens, 3 if tokens > 4096 or options.quick else 7, rate)
    for kind in ("local", "global"):
        rows += [memory(kind, tokens, dense=True) for tokens in ([2048] if options.quick else [4096, 8192])]
        rows += [memory(kind, tokens, dense=False) for tokens in ([4096] if options.quick else [8192, 16384, 32768])]
    print_rows(rows, "one layer, forward and backward: median of rounds (± half the range); lower is better")
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
