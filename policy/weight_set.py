"""A second set of a model's trainable weights: the EMA anchor of J-BOND and WARP, or the initial policy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gemsmith.contracts.processes import rank
from gemsmith.contracts.reading import reading
from gemsmith.policy.adapter_products import adapter_pairs, averaged_product
from gemsmith.policy.training.sharding import shard_of, unsharded


class WeightSet:
    """Float32 copy of a model's trainable parameters, which can be swapped in for the live ones.

    Under LoRA only the adapters are copied. `update` averages their products B A, which are what the policy computes
    with, as factors of a higher rank (`gemsmith.policy.adapter_products`). The copy is float32 for every dtype of the
    model, because bfloat16 loses an EMA of rate 0.01: the step is below the spacing of its numbers. Under ZeRO-3 each
    process keeps its shard, split like the model, from the first use after the model was sharded; of adapters it keeps
    the whole.
    """

    def __init__(self, model: nn.Module) -> None:
        """Copy the current trainable parameters of `model`, before they are sharded."""
        self._live: dict[str, Any] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._copy = {name: parameter.detach().float().clone() for name, parameter in self._live.items()}
        self._pairs = adapter_pairs(list(self._live))
        self._factors = {name for pair in self._pairs for name in pair}
        self.sharded = False

    def shard(self) -> None:
        """Keep only this process's shard if the model has been sharded since; otherwise do nothing."""
        if self.sharded or not any(hasattr(parameter, "ds_tensor") for parameter in self._live.values()):
            return
        for name, parameter in self._live.items():
            if name not in self._factors:
                self._copy[name] = shard_of(self._copy[name], parameter)
        self.sharded = True

    @torch.no_grad()
    def update(self, rate: float) -> None:
        """Update copy <- (1 - rate) copy + rate live (BOND Algorithm 2 step 5 with eta, WARP section 3.1 with mu).

        Of adapters it is the product B A that is averaged. Under ZeRO-3 every process calls this.
        """
        self.shard()
        for name, parameter in self._live.items():
            if name not in self._factors:
                live = parameter.ds_tensor if self.sharded else parameter
                self._copy[name].lerp_(live.detach().float().to(self._copy[name].device), rate)
        for pair in self._pairs:
            b, a = (self._whole_live(name) for name in pair)
            left, right = (self._copy[name] for name in pair)
            for name, factor in zip(pair, averaged_product(left, right, b, a, rate), strict=True):
                self._copy[name] = factor

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run the block with these weights in the model, and restore its live weights afterwards.

        Under ZeRO-3 the live weights must be gathered (`gemsmith.policy.training.sharding.whole`), in every process.
        """
        self.shard()
        live = {name: parameter.data for name, parameter in self._live.items()}
        try:
            for name, parameter in self._live.items():
                parameter.data = self._whole(name).to(parameter.device, parameter.dtype)
            yield
        finally:
            for name, parameter in self._live.items():
                parameter.data = live[name]

    def save(self, path: Path) -> None:
        """Write the set to a safetensors file. Every process calls this; under ZeRO-3 each writes its shard beside
        it.
        """
        self.shard()
        if self.sharded or rank() == 0:
            save_file(self._copy, self._path(path))

    def load(self, path: Path) -> None:
        """Read the set back from the file that `save` wrote."""
        self.shard()
        file = self._path(path)
        with reading(file, "a second set of this model's weights", "delete the checkpoint that it is in"):
            stored = load_file(file)
            for name, tensor in self._copy.items():
                if name not in self._factors:
                    tensor.copy_(stored[name])
                elif stored[name].dim() == 1:  # a shard, as earlier versions wrote adapters under ZeRO-3
                    self._copy[name] = unsharded(stored[name].to(tensor.device), self._live[name])
                else:  # factors of any rank
                    self._copy[name] = stored[name].to(tensor.device)

    def _whole_live(self, name: str) -> Tensor:
        """Return a live parameter as a whole, in float32; under ZeRO-3 every process calls this."""
        parameter, device = self._live[name], self._copy[name].device
        if self.sharded:
            parameter = unsharded(parameter.ds_tensor.detach().to(device), parameter)
        return parameter.detach().float().to(device)

    def _whole(self, name: str) -> Tensor:
        if not self.sharded or name in self._factors:
            return self._copy[name]
        if self._live[name].numel() != self._live[name].ds_numel:
            raise RuntimeError("a second set of weights can only be swapped in while the live weights are gathered")
        return unsharded(self._copy[name], self._live[name])

    def _path(self, path: Path) -> Path:
        return path.with_stem(f"{path.stem}-{rank()}") if self.sharded else path
