"""Sequence parallelism after DeepSpeed-Ulysses (Jacobs et al. 2023): each process holds a slice of every sequence.

Everything in Gemma 3 except attention works on one token at a time, and runs on the slice. Around attention, processes
exchange data: each one sends its slice of all but some heads, and receives the whole sequence of those heads. Any
registered attention therefore runs as in one process, including windows and packed documents.

DeepSpeed's own `UlyssesSPAttentionHF` discards masks, and with them the window of local layers; hence this module. The
batch is not split: the processes of a group read the same one, and each keeps the labels that its slice predicts.
Losses are therefore sums over labels as usual, and neither ZeRO nor the optimiser needs to know.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader
from transformers import AttentionInterface, AttentionMaskInterface, Gemma3TextConfig, Gemma3TextModel, Trainer
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    create_causal_mask,
    create_sliding_window_causal_mask,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.gemma3.modeling_gemma3 import eager_attention_forward

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.processes import count, rank
from gemsmith.policy.config import EngineConfig


@dataclass(frozen=True)
class Part:
    """The slice of this process: the `index`-th of `size`, among the processes of `group`."""

    size: int
    index: int
    group: Any = None

    def span(self, tokens: int) -> tuple[int, int]:
        """Return the first token of the slice and the one after its last, for a sequence padded to a multiple of
        `size`.
        """
        width = -(-tokens // self.size)
        return self.index * width, (self.index + 1) * width


def data_processes(engine: EngineConfig, stage: str, *, sliceable: bool) -> int:
    """Return how many processes read different data: all of them, divided by the number that shares each sequence.

    Args:
        engine: the recipe's engine.
        stage: id of the stage, for messages.
        sliceable: True if the stage's loss is a sum over labels, so that each process can take some of them.

    Raises:
        UserError: the stage cannot share sequences, or the number of processes does not fit.
    """
    size = engine.sequence_parallel
    if size == 1:
        return count()
    if not sliceable:
        raise UserError(
            f"Stage {stage} cannot run with `sequence_parallel: {size}`, which only stages of kind sft support; "
            "set it to 1, or move the stage to another recipe."
        )
    if count() % size:
        raise UserError(
            f"`sequence_parallel: {size}` needs a multiple of {size} processes, but {count()} run; start with "
            f"`gemsmith run RECIPE --processes {size}`, or set it to 1."
        )
    return count() // size


@contextmanager
def sequences_shared(trainer: Trainer, size: int) -> Iterator[None]:
    """Make the trainer's model compute a slice of each sequence per process, inside the block; `size` 1 changes
    nothing.

    Raises:
        UserError: the model's heads cannot be divided among that many processes.
    """
    if size == 1:
        yield
        return
    text = next(module for module in trainer.model.modules() if isinstance(module, Gemma3TextModel))
    _check_heads(text.config, size)
    part = Part(size, rank() % size, _group(size))
    # Two hooks on the trainer: the collator masks labels of other slices, and the loader gives the processes of a
    # group the same batch.
    collate, prepare = trainer.data_collator, trainer.accelerator.prepare_data_loader
    trainer.data_collator = partial(own_labels, collate, part)
    trainer.accelerator.prepare_data_loader = partial(_same_batches, trainer, size)
    try:
        with sliced(text, part):
            yield
    finally:
        trainer.data_collator, trainer.accelerator.prepare_data_loader = collate, prepare


@contextmanager
def sliced(text: Gemma3TextModel, part: Part) -> Iterator[None]:
    """Make the text model compute this process's slice of the whole sequences that it gets, inside the block.

    Its hidden states keep the whole length and are zero outside the slice. Every process of the group must call it at
    the same time, in the backward pass too.
    """
    implementation = text.config._attn_implementation
    # The exchange is registered as an attention implementation of its own, with the mask function of the original:
    # transformers then builds masks of the whole sequence in whatever form the original wants.
    name = f"ulysses_{implementation}"
    attend = eager_attention_forward if implementation == "eager" else ALL_ATTENTION_FUNCTIONS[implementation]
    AttentionInterface.register(name, partial(exchanged_attention, attend, part))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    # A stack, because gradient checkpointing runs the forward pass again inside the backward pass.
    lengths: list[int] = []

    def cut(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
        if args or given.get("past_key_values") is not None:
            raise RuntimeError("a sliced model takes only keyword arguments and no cache")
        lengths.append(_length(given))
        return (), {**given, **_slice_of_inputs(text, given, part), "use_cache": False}

    def put(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        tokens = lengths.pop()
        # Zeros outside the slice: the head runs only at labels that this process keeps, so they are never used, but
        # the trainer's shapes stay those of whole sequences.
        begin, end = part.span(tokens)
        behind = part.size * (end - begin) - end
        hidden = nn.functional.pad(output.last_hidden_state, (0, 0, begin, behind))
        output.last_hidden_state = hidden[:, :tokens]
        return output

    handles = [text.register_forward_pre_hook(cut, with_kwargs=True), text.register_forward_hook(put)]
    text.config._attn_implementation = name
    try:
        yield
    finally:
        text.config._attn_implementation = implementation
        for handle in handles:
            handle.remove()


def exchanged_attention(
    attend: Callable[..., Any],
    part: Part,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Run `attend` on the whole sequence for this process's share of heads (transformers' attention interface).

    Args:
        attend: a registered attention function.
        part: the slice of this process.
        module: the attention layer.
        query: [B, H, L, D], L tokens of the slice.
        key: [B, G, L, D]; each head goes to several processes if there are fewer heads than processes.
        value: as `key`.
        attention_mask: mask of the whole sequence, in any form that `attend` accepts.
        rest: passed on, except `position_ids`, which are those of the slice.

    Returns:
        [B, L, H, D], the slice of all heads.
    """
    # Fewer key heads than processes (grouped-query attention): copy each key head so that every process gets one. The
    # backward pass of repeat_interleave sums the copies' gradients.
    copies = max(1, part.size // key.shape[1])
    whole = [to_heads(x, part) for x in (query, *(x.repeat_interleave(copies, dim=1) for x in (key, value)))]
    rest.pop("position_ids", None)
    # `attend` repeats keys by the module's num_key_value_groups, which is another number for this share of heads.
    layer = _AttentionShare(module, whole[0].shape[1] // whole[1].shape[1])
    out_BThD, _ = attend(layer, *whole, attention_mask, **rest)
    return to_slice(out_BThD, part), None


def to_heads(x_BHLD: Tensor, part: Part) -> Tensor:
    """Exchange all heads of a slice for the whole sequence of some heads, [B, H / size, T, D]; differentiable."""
    batch, heads, tokens, width = x_BHLD.shape
    # Process i needs heads i * H / size onwards of every slice, so the process dimension comes first for the exchange.
    # The parts that arrive are consecutive slices: concatenating them along tokens gives the whole sequence.
    parts = x_BHLD.reshape(batch, part.size, heads // part.size, tokens, width).transpose(0, 1)
    got = _Exchange.apply(parts, part.group)  # [source process, B, H / size, L, D]
    return got.permute(1, 2, 0, 3, 4).reshape(batch, heads // part.size, part.size * tokens, width)


def to_slice(x_BThD: Tensor, part: Part) -> Tensor:
    """Exchange the whole sequence of some heads for all heads of a slice, [B, L, H, D]; differentiable."""
    batch, tokens, heads, width = x_BThD.shape
    # The inverse: process i gets tokens of slice i, and the parts that arrive are consecutive groups of heads.
    parts = x_BThD.reshape(batch, part.size, tokens // part.size, heads, width).transpose(0, 1)
    got = _Exchange.apply(parts, part.group)  # [source process, B, L, H / size, D]
    return got.permute(1, 2, 0, 3, 4).reshape(batch, tokens // part.size, part.size * heads, width)


def own_labels(collate: Callable[..., dict[str, Any]], part: Part, rows: Sequence[Any]) -> dict[str, Any]:
    """Return a batch whose labels are those that the slice predicts: position t - 1 predicts the label of token t."""
    batch = dict(collate(rows))
    labels_BT = batch["labels"]
    begin, end = part.span(labels_BT.shape[1])
    at_T = torch.arange(labels_BT.shape[1], device=labels_BT.device)
    # Position `begin` of the slice predicts token begin + 1, and its last position end - 1 predicts token `end`: the
    # label of token `begin` belongs to the previous slice.
    batch["labels"] = labels_BT.masked_fill((at_T <= begin) | (at_T > end), -100)
    return batch


class _Exchange(torch.autograd.Function):
    """All-to-all over the first dimension: part i goes to process i. It is its own transpose, and so its own
    backward pass.
    """

    @staticmethod
    def forward(ctx: Any, parts: Tensor, group: Any) -> Tensor:
        ctx.group = group
        given, got = parts.contiguous(), torch.empty(parts.shape, dtype=parts.dtype, device=parts.device)
        distributed.all_to_all_single(got, given, group=group)
        return got

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Exchange.apply(grads[0], ctx.group), None


class _AttentionShare:
    """View of an attention layer for `attend`, with the number of queries per key of this process's share."""

    def __init__(self, module: nn.Module, groups: int) -> None:
        self._module, self.num_key_value_groups = module, groups

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _length(given: dict[str, Any]) -> int:
    return (given["input_ids"] if given.get("inputs_embeds") is None else given["inputs_embeds"]).shape[1]


def _slice_of_inputs(text: Gemma3TextModel, given: dict[str, Any], part: Part) -> dict[str, Any]:
    """Return the slice's tokens and positions, and the masks of the whole sequences by kind of layer."""
    tokens = _length(given)
    begin, end = part.span(tokens)
    # The last slice is padded on the right. Causal attention keeps real tokens from seeing the padding.
    more = part.size * (end - begin) - tokens  # tokens behind the sequences that make slices equal; nothing sees them
    name = "input_ids" if given.get("inputs_embeds") is None else "inputs_embeds"
    inputs = given[name]
    padding = (0, more) if name == "input_ids" else (0, 0, 0, more)
    inputs = nn.functional.pad(inputs, padding)
    positions = given.get("position_ids")
    if positions is None:
        positions = torch.arange(inputs.shape[1], device=inputs.device)[None]
    elif more:
        beyond = torch.arange(1, more + 1, device=inputs.device)
        positions = torch.cat([positions, positions[:, -1:] + beyond], dim=1)
    mask = given.get("attention_mask")
    about = {
        "config": text.config,
        "inputs_embeds": text.norm.weight.new_empty(inputs.shape[0], inputs.shape[1], 1),  # for its shape and dtype
        "attention_mask": None if mask is None else nn.functional.pad(mask, (0, more)),
        "past_key_values": None,
        "position_ids": positions,
    }
    # Masks depend on positions of the whole sequence, including document boundaries of packed rows, so they are built
    # before the slice is cut.
    masks = {
        "full_attention": create_causal_mask(**about),
        "sliding_attention": create_sliding_window_causal_mask(**about),
    }
    return {name: inputs[:, begin:end], "position_ids": positions[:, begin:end], "attention_mask": masks}


def _check_heads(config: Gemma3TextConfig, size: int) -> None:
    heads, keys = config.num_attention_heads, config.num_key_value_heads
    if heads % size or (keys % size and size % keys):
        raise UserError(
            f"`sequence_parallel: {size}` cannot divide {heads} query and {keys} key heads; use a number "
            f"that divides {heads} and that divides {keys} or is a multiple of it."
        )


def _group(size: int) -> Any:
    """Return this process's group of `size` consecutive processes; torch requires every process to create all
    groups.
    """
    if size == count():
        return distributed.group.WORLD
    # new_group is collective over all processes, also over those outside the group.
    groups = [distributed.new_group(list(range(first, first + size))) for first in range(0, count(), size)]
    return groups[rank() // size]


def _same_batches(trainer: Trainer, size: int, loader: DataLoader[Any], *_: Any, **__: Any) -> DataLoader[Any]:
    """Return the loader divided among groups of processes, as accelerate divides it among processes."""
    accelerator = trainer.accelerator
    prepared = prepare_data_loader(
        loader,
        accelerator.device,
        num_processes=count() // size,
        process_index=rank() // size,
        put_on_device=True,
        rng_types=[],
        dispatch_batches=False,
        even_batches=accelerator.even_batches,
        use_seedable_sampler=accelerator.use_seedable_sampler,
        data_seed=accelerator.dataloader_config.data_seed,
        non_blocking=accelerator.non_blocking,
    )
    accelerator._dataloaders.append(prepared)
    return prepared
