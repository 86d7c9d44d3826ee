"""The order of examples in a training: it depends on the seed, not on the number of processes."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class DataOrder(Sampler[int]):
    """All examples of a training, one optimiser step after the other, so that an epoch's end never shortens a step.

    Each pass over the data is a new permutation. The rest of a pass that does not fill a batch is left out; if there
    are fewer examples than a batch needs, passes are concatenated instead.
    """

    def __init__(self, examples: int, batch: int, steps: int, seed: int) -> None:
        """Create `steps` batches of `batch` indices below `examples`."""
        self.examples, self.batch, self.steps, self.seed = examples, batch, steps, seed

    def __len__(self) -> int:
        return self.steps * self.batch

    def __iter__(self) -> Iterator[int]:
        left, epoch = len(self), 0
        while left:
            order = torch.randperm(self.examples, generator=torch.Generator().manual_seed(self.seed + epoch)).tolist()
            if self.examples >= self.batch:
                order = order[: self.examples // self.batch * self.batch]
            yield from order[:left]
            left, epoch = left - len(order[:left]), epoch + 1
