"""The vocabulary head during sampling on a CPU: tile by tile, into a buffer that the next call overwrites.

Gemma's logits of 128 rows are 134 MB: a new tensor of that size costs page faults at every token, and one product of
that width is slower than its parts (policy/head/tiled_matmul.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gemsmith.policy.head.tiled_matmul import CPU_TILE, chunk_logits


@contextmanager
def tiled_head(model: Any) -> Iterator[None]:
    """Make the model's logits float32 and valid only until its next call, inside the block, where tiles are faster.

    They are faster in float32 on a CPU, for a vocabulary of many tiles. A head with an adapter or a bias is not
    changed. Only the head's own `forward` is replaced, so that hooks on it are still called.
    """
    head = model.get_output_embeddings()
    if not _pays_off(head):
        yield
        return
    buffers: list[Tensor] = []

    def forward(hidden_B1D: Tensor) -> Tensor:
        rows = hidden_B1D.shape[:-1].numel()
        if not buffers or len(buffers[0]) < rows:
            buffers[:] = [hidden_B1D.new_empty(rows, len(head.weight))]
        logits_BV = chunk_logits(hidden_B1D.flatten(0, -2), head.weight, buffers[0][:rows])
        return logits_BV.unflatten(0, hidden_B1D.shape[:-1])

    head.forward = forward
    try:
        yield
    finally:
        del head.forward


def _pays_off(head: nn.Module) -> bool:
    return (
        type(head) is nn.Linear
        and head.bias is None
        and "forward" not in head.__dict__
        and head.weight.device.type == "cpu"
        and head.weight.dtype == torch.float32
        and head.weight.shape[0] > 4 * CPU_TILE
    )
