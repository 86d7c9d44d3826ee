"""A policy whose weights are, or are trained to be, on the grid of a quantised format.

What is quantised is what Gemma 3's own quantised releases quantise: the matrices of attention and MLP. The embedding,
which is the head too, has a format of its own (released Q4_0 files keep it in float16); norms stay as they are.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear
from transformers import Gemma3ForCausalLM

from gemsmith.contracts.errors import UserError
from gemsmith.weights.quantise import Format, fault_of_size, fault_of_width, quantised, straight_through, ties_spread

MARK = "quantisation.json"
EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True)
class Scheme:
    """Which format each weight is in: `format` the matrices of attention and MLP, `embedding` the tied embedding."""

    format: Format
    embedding: Format

    def of(self, name: str) -> Format | None:
        """The format of the weight that the model calls so; None: it is not quantised (norms)."""
        if name == EMBEDDING:
            return self.embedding
        return self.format if name.endswith("_proj.weight") else None


def read_mark(folder: Path) -> Scheme | None:
    """What a policy's folder says of its weights; None where they are on no grid.

    Raises:
        UserError: the mark cannot be read.
    """
    path = folder / MARK
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        return Scheme(content["format"], content["embedding"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not what a stage of kind qat writes ({error}): run the stage again, or remove the file to "
            "take the weights as plain numbers."
        ) from error


def write_mark(folder: Path, scheme: Scheme) -> None:
    """Say in a policy's folder that its weights are on the scheme's grid."""
    (folder / MARK).write_text(json.dumps(asdict(scheme), indent=1) + "\n")


def check_widths(model: Gemma3ForCausalLM, scheme: Scheme, fix: str) -> None:
    """Refuse a policy whose rows the formats cannot hold.

    Args:
        model: whose weights to look at.
        scheme: the formats.
        fix: what to do about it, as the end of the sentence.

    Raises:
        UserError: a row is no multiple of 32 wide, as blocks want it.
    """
    for name, weight in model.named_parameters():
        format = scheme.of(name)
        if format is not None and (fault := fault_of_width(weight.shape[-1], format)):
            raise UserError(f"{name.removesuffix('.weight')} {fault}: {fix}")


def check_sizes(model: Gemma3ForCausalLM, scheme: Scheme) -> None:
    """Refuse a policy with weights that are beyond a format's range, or no numbers.

    Raises:
        UserError: one has; it is named.
    """
    for name, weight in model.named_parameters():
        if fault := fault_of_size(weight, scheme.of(name)):
            raise UserError(
                f"{name.removesuffix('.weight')} {fault}: the policy is damaged, or its training diverged; take one "
                "from before that"
            )


def quantise_in_place(model: Gemma3ForCausalLM, scheme: Scheme) -> None:
    """Move every weight to the scheme's grid; done twice, the second time changes nothing.

    Raises:
        UserError: the grid does not reach as far as a weight; none is moved.
    """
    check_sizes(model, scheme)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if (format := scheme.of(name)) is not None:
                weight.copy_(quantised(weight, format))


def spread_ties(model: Gemma3ForCausalLM, scheme: Scheme, seed: int) -> None:
    """Move weights that lie half-way between two codes, and no rounded one (weights/quantise.py, `ties_spread`)."""
    generator = torch.Generator(model.device).manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if (format := scheme.of(name)) is not None:
                weight.copy_(ties_spread(weight, format, generator))


@contextmanager
def fake_quantised(model: Gemma3ForCausalLM, scheme: Scheme) -> Iterator[None]:
    """Inside, the model computes with quantised weights, and gradients reach the weights straight through.

    The weights themselves stay as they are, and so do their names: checkpoints, optimisers and whatever wraps the
    model know nothing of it. A forward pass that is differentiated holds the quantised copy of each matrix until its
    backward pass, unless gradient checkpointing drops it.
    """
    changed: list[nn.Module] = []
    try:
        for name, module in model.named_modules():
            format = scheme.of(f"{name}.weight")
            if format is None or not isinstance(module, nn.Linear | nn.Embedding):
                continue
            forward = _rows_looked_up if isinstance(module, nn.Embedding) else _linear
            module.__dict__["forward"] = _bound(forward, module, format)
            changed.append(module)
        head = model.lm_head
        head.__dict__["seen_weight"] = lambda: straight_through(head.weight, scheme.embedding)
        head.__dict__["forward"] = _bound(_linear, head, scheme.embedding)
        changed.append(head)
        yield
    finally:
        for module in changed:
            module.__dict__.pop("forward", None)
            module.__dict__.pop("seen_weight", None)


def seen_weight(module: nn.Linear) -> Tensor:
    """The weight that a module computes with, where its forward pass is not what is run (policy/head/logprobs.py)."""
    see: Callable[[], Tensor] | None = module.__dict__.get("seen_weight")
    return module.weight if see is None else see()


def _bound(forward: Any, module: nn.Module, format: Format) -> Any:
    return lambda given: forward(module, given, format)


def _linear(module: nn.Linear, inputs: Tensor, format: Format) -> Tensor:
    return linear(inputs, straight_through(module.weight, format), module.bias)


def _rows_looked_up(module: Any, ids: Tensor, format: Format) -> Tensor:
    """As Gemma 3's scaled embedding; only the rows that are looked up are quantised, as each is for itself."""
    rows = embedding(ids, module.weight, module.padding_idx)
    return straight_through(rows, format) * module.embed_scale.to(module.weight.dtype)
