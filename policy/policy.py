"""What the rest of the house means by a policy: a Gemma 3 text model and the tokenizer that belongs to it."""

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
        """Ids that end a completion; (1, 106), `<eos>` and `<end_of_turn>`, for every Gemma 3."""
        ids = self.model.generation_config.eos_token_id
        return tuple(ids) if isinstance(ids, list | tuple) else (ids,)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.model.parameters()).device


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """The model in evaluation mode (no dropout), and afterwards each module in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
