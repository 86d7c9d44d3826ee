"""A second set of a model's trainable weights: the EMA anchor of J-BOND and WARP, or the initial policy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


class WeightSet:
    """Float32 copy of the trainable parameters of a model, which can be swapped in for the live ones.

    Under LoRA only the adapters are copied. The copy is float32 whatever the model's dtype, because bfloat16 loses an
    EMA of rate 0.01: the step is below the spacing of its numbers.
    """

    def __init__(self, model: nn.Module) -> None:
        """Copy the trainable parameters of `model` as they are now."""
        self._live = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._copy = {name: parameter.detach().float().clone() for name, parameter in self._live.items()}

    @torch.no_grad()
    def update(self, rate: float) -> None:
        """copy <- (1 - rate) copy + rate live (BOND Algorithm 2 step 5 with eta, WARP section 3.1 with mu)."""
        for name, parameter in self._live.items():
            self._copy[name].lerp_(parameter.detach().float(), rate)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model computes with this set inside the context, and with its live weights again afterwards."""
        live = {name: parameter.data for name, parameter in self._live.items()}
        try:
            for name, parameter in self._live.items():
                parameter.data = self._copy[name].to(parameter.dtype)
            yield
        finally:
            for name, parameter in self._live.items():
                parameter.data = live[name]

    def save(self, path: Path) -> None:
        """Write the set to a safetensors file."""
        save_file(self._copy, path)

    def load(self, path: Path) -> None:
        """Read the set back from the file that `save` wrote."""
        stored = load_file(path)
        for name, tensor in self._copy.items():
            tensor.copy_(stored[name])
