"""A teacher's linear layers in 8 or 4 bits, by torchao; weights only, so that it computes as before."""

import importlib
import warnings
from typing import Any, Literal

import torch
from torch import nn

from gemsmith.contracts.errors import UserError
from gemsmith.policy.head.logprobs import vocabulary_head

GROUP = 32  # weights that share a scale in 4 bits; every width of a Gemma 3 is a multiple


def quantise(model: nn.Module, to: Literal["int8", "int4"]) -> None:
    """Round the weights of every linear layer but the vocabulary head, whose weight is the embedding, in place.

    `int8` has a scale for each output, `int4` one for each 32 weights of an output; on a CPU torchao keeps these in 8
    bits too, so that `int4` then saves no more memory than `int8`.

    Raises:
        UserError: torchao is not installed, or refuses.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torchao: Any = importlib.import_module("torchao.quantization")
    except ImportError as error:
        raise UserError(
            f"quantise: {to} needs torchao, which is not there ({error}): run `pip install 'gemsmith[torchao]'`, "
            "or remove `quantise`."
        ) from error
    head = vocabulary_head(model)
    if to == "int8":
        way = torchao.Int8WeightOnlyConfig()
    else:
        types: Any = torch  # whose stubs know no int4
        way = torchao.IntxWeightOnlyConfig(weight_dtype=types.int4, granularity=torchao.PerGroup(GROUP))
    try:
        torchao.quantize_(model, way, filter_fn=lambda layer, _: isinstance(layer, nn.Linear) and layer is not head)
    except (ImportError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(f"quantise: {to} was refused by torchao ({str(error).splitlines()[0]}): remove it.") from error
