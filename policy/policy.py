"""The policy: a Gemma 3 text model and its tokenizer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import Gemma3ForCausalLM, PreTrainedTokenizerFast


@dataclass
class Policy:
    """A Gemma 3 text model with its tokenizer."""

    model: Gemma3ForCausalLM
    tokenizer: PreTrainedTokenizerFast

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Return the ids that end a completion; (1, 106), `<eos>` and `<end_of_turn>`, for every Gemma 3."""
        ids = self.model.generation_config.eos_token_id
        return tuple(ids) if isinstance(ids, list | tuple) else (ids,)

    @property
    def device(self) -> torch.device:
        """Return the device of the model's weights."""
        return next(self.model.parameters()).device


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Run the block with the model in evaluation mode (no dropout); restore each module's mode afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
