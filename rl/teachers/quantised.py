"""Quantisation of a teacher's linear layers to 8 or 4 bits with torchao; weights only, not activations."""

import importlib
import warnings
from typing import Any, Literal

import torch
from torch import nn

from gemsmith.contracts.errors import UserError
from gemsmith.policy.head.logprobs import vocabulary_head

GROUP = 32  # int4 weights per scale; all widths of Gemma 3 are multiples of it


def quantise(model: nn.Module, to: Literal["int8", "int4"]) -> None:
    """Quantise the weights of all linear layers in place, except the vocabulary head, which is tied to the embedding.

    `int8` has one scale per output channel, `int4` one per 32 weights of an output channel. On a CPU torchao stores
    int4 weights in 8 bits, so that `int4` saves no more memory than `int8`.

    Raises:
        UserError: torchao is not installed, or does not support the model.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torchao: Any = importlib.import_module("torchao.quantization")
    except ImportError as error:
        raise UserError(
            f"quantise: {to} needs torchao, which cannot be imported ({error}): run `pip install 'gemsmith[torchao]'`, "
            "or remove `quantise`."
        ) from error
    head = vocabulary_head(model)
    if to == "int8":
        way = torchao.Int8WeightOnlyConfig()
    else:
        types: Any = torch  # torch's type stubs lack int4
        way = torchao.IntxWeightOnlyConfig(weight_dtype=types.int4, granularity=torchao.PerGroup(GROUP))
    try:
        torchao.quantize_(model, way, filter_fn=lambda layer, _: isinstance(layer, nn.Linear) and layer is not head)
    except (ImportError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(
            f"quantise: {to} failed in torchao ({str(error).splitlines()[0]}): remove `quantise`."
        ) from error
