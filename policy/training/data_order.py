"""The order in which a training sees its examples: a function of the seed, and not of how many processes there are."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class DataOrder(Sampler[int]):
    """All the examples of a training, one optimiser step after the other, so that no step is cut short by an epoch.

    Each pass over the data is a permutation of its own. What is left of one when no whole batch is, is left out; where
    there are fewer examples than a batch needs, passes run into each other instead.
    """

    def __init__(self, examples: int, batch: int, steps: int, seed: int) -> None:
        """`steps` batches of `batch` indices below `examples`."""
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
