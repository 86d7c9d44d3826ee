"""A policy whose weights are, or are trained to be, on the grid of a quantised format.

The quantised weights are the same as in Gemma 3's own quantised releases: the matrices of attention and MLP. The
embedding, which is also the head, has a format of its own (released Q4_0 files keep it in float16); norms are not
quantised.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear
from transformers import Gemma3ForCausalLM

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.reading import as_object, reading
from gemsmith.weights.quantise import Format, fault_of_size, fault_of_width, quantised, straight_through, ties_spread

MARK = "quantisation.json"
EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True)
class Scheme:
    """Format of each weight: `format` for the matrices of attention and MLP, `embedding` for the tied embedding."""

    format: Format
    embedding: Format

    def of(self, name: str) -> Format | None:
        """Return the format of the weight with this name in the model; None if it is not quantised (norms)."""
        if name == EMBEDDING:
            return self.embedding
        return self.format if name.endswith("_proj.weight") else None


def read_mark(folder: Path) -> Scheme | None:
    """Return the quantisation mark in a policy's folder; None if its weights are on no grid.

    Raises:
        UserError: the mark cannot be read.
    """
    path = folder / MARK
    if not path.is_file():
        return None
    remedy = "run the stage again, or remove the file to load the weights as plain numbers"
    with reading(path, "the mark of a `qat` stage", remedy):
        content = as_object(json.loads(path.read_text(encoding="utf-8")))
        scheme = Scheme(content["format"], content["embedding"])
        for name in (scheme.format, scheme.embedding):
            if name not in get_args(Format):
                raise ValueError(f"its format is {str(name)[:40]!r}")
        return scheme


def write_mark(folder: Path, scheme: Scheme) -> None:
    """Record in a policy's folder that its weights are on the scheme's grid."""
    (folder / MARK).write_text(json.dumps(asdict(scheme), indent=1) + "\n")


def check_widths(model: Gemma3ForCausalLM, scheme: Scheme, fix: str) -> None:
    """Reject a policy with rows that the formats cannot hold.

    Args:
        model: the model whose weights are checked.
        scheme: the formats.
        fix: what the user can do, as the end of the sentence.

    Raises:
        UserError: the width of a row is not a multiple of 32, as blocks require.
    """
    for name, weight in model.named_parameters():
        format = scheme.of(name)
        if format is not None and (fault := fault_of_width(weight.shape[-1], format)):
            raise UserError(f"{name.removesuffix('.weight')} {fault}: {fix}")


def check_sizes(model: Gemma3ForCausalLM, scheme: Scheme) -> None:
    """Reject a policy with weights that are NaN, infinite or beyond a format's range.

    Raises:
        UserError: there is such a weight; the message names it.
    """
    for name, weight in model.named_parameters():
        if fault := fault_of_size(weight, scheme.of(name)):
            raise UserError(
                f"{name.removesuffix('.weight')} {fault}: the policy is damaged, or its training diverged; use a "
                "policy "
                "from before that"
            )


def quantise_in_place(model: Gemma3ForCausalLM, scheme: Scheme) -> None:
    """Round every weight to the scheme's grid; a second call changes nothing.

    Raises:
        UserError: a weight is out of the grid's range; no weight is changed.
    """
    check_sizes(model, scheme)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if (format := scheme.of(name)) is not None:
                weight.copy_(quantised(weight, format))


def spread_ties(model: Gemma3ForCausalLM, scheme: Scheme, seed: int) -> None:
    """Move weights that are half-way between two codes; rounded weights stay (`ties_spread` in weights/quantise.py)."""
    generator = torch.Generator(model.device).manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if (format := scheme.of(name)) is not None:
                weight.copy_(ties_spread(weight, format, generator))


@contextmanager
def fake_quantised(model: Gemma3ForCausalLM, scheme: Scheme) -> Iterator[None]:
    """Run the block with quantised weights in the model; gradients pass straight through to the weights.

    The weights and their names do not change: checkpoints, optimisers and wrappers of the model see no difference. A
    forward pass that is differentiated holds the quantised copy of each matrix until its backward pass, unless gradient
    checkpointing drops it.
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
    """Return the weight that a module computes with, for code that does not run its forward pass
    (policy/head/logprobs.py).
    """
    see: Callable[[], Tensor] | None = module.__dict__.get("seen_weight")
    return module.weight if see is None else see()


def _bound(forward: Any, module: nn.Module, format: Format) -> Any:
    return lambda given: forward(module, given, format)


def _linear(module: nn.Linear, inputs: Tensor, format: Format) -> Tensor:
    return linear(inputs, straight_through(module.weight, format), module.bias)


def _rows_looked_up(module: Any, ids: Tensor, format: Format) -> Tensor:
    """Quantise only the rows looked up, for Gemma 3's scaled embedding; rows are quantised independently."""
    rows = embedding(ids, module.weight, module.padding_idx)
    return straight_through(rows, format) * module.embed_scale.to(module.weight.dtype)
