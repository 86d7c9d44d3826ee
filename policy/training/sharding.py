"""Helpers for ZeRO-3: gathering weights for a while, shards of second sets of weights, and whole copies to save."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from gemsmith.contracts.processes import rank


def is_sharded(model: nn.Module) -> bool:
    """Return True if each process holds only its shard of the model's weights (ZeRO-3)."""
    return any(hasattr(parameter, "ds_tensor") for parameter in model.parameters())


@contextmanager
def whole(engine: nn.Module) -> Iterator[None]:
    """Give every process the whole weights inside the block, so that forward passes need no communication.

    Without ZeRO-3 nothing changes. Weights are gathered once and not per token, and processes may run the model a
    different number of times.

    Args:
        engine: DeepSpeed's wrapper of the model (the trainer's `model_wrapped`), or any other model.
    """
    if not is_sharded(engine):
        yield
        return
    import deepspeed
    from trl.models.utils import add_hooks, remove_hooks

    with deepspeed.zero.GatheredParameters(list(engine.parameters())):
        remove_hooks(engine)
        try:
            yield
        finally:
            add_hooks(engine)


def shard_of(tensor: Tensor, parameter: Any) -> Tensor:
    """Return this process's shard of a tensor, split as DeepSpeed split the parameter like it; flat, padded with
    zeros.
    """
    size, place = parameter.ds_tensor.numel(), torch.distributed.get_rank(parameter.ds_process_group)
    part = tensor.flatten()[place * size : (place + 1) * size]
    return nn.functional.pad(part, (0, size - part.numel())).clone()


def unsharded(shard: Tensor, parameter: Any) -> Tensor:
    """Return the tensor whose shards the processes hold; every process must call this, in the same order."""
    group = parameter.ds_process_group
    flat = shard.new_empty(shard.numel() * torch.distributed.get_world_size(group))
    torch.distributed.all_gather_into_tensor(flat, shard, group=group)
    return flat[: parameter.ds_numel].view(parameter.ds_shape)


def plain_module(model: Any) -> Any:
    """Return the model inside peft's wrapper, with its adapters; any other model unchanged."""
    return getattr(getattr(model, "base_model", None), "model", model) if hasattr(model, "peft_config") else model


def whole_copy(model: Any) -> Any:
    """Return a plain copy of a sharded model on the CPU, adapters merged; None except in the first process.

    Weights are gathered module by module, so that no device has to hold all of them.
    """
    plain = plain_module(model)
    state = whole_state(plain, keep=rank() == 0)
    if not state:
        return None
    with torch.device("meta"):
        copy = type(plain)(plain.config)
    copy.load_state_dict(state, strict=False, assign=True)
    copy.tie_weights()
    if getattr(plain, "generation_config", None) is not None:
        copy.generation_config = plain.generation_config
    return copy.eval()


def whole_state(model: nn.Module, keep: bool = True) -> dict[str, Tensor]:
    """Return whole weights on the CPU by their names in the plain model, with adapters merged; shared ones once.

    Under ZeRO-3 every process must call this, inside `whole` or outside. The weights are copies.

    Args:
        model: a plain model, with adapters in it, or wrapped by peft.
        keep: False if this process only helps to gather; it receives nothing.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    model = plain_module(model)
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if inside and name.startswith(inside):
            continue
        source, adapters = module, isinstance(module, BaseTunerLayer)
        if adapters or isinstance(module, ModulesToSaveWrapper):
            inside = (*inside, f"{name}.")
            source = module.get_base_layer() if adapters else module.modules_to_save[module.active_adapters[0]]
        own = {key: p for key, p in source.named_parameters(recurse=False) if id(p) not in seen}
        seen |= {id(p) for p in own.values()}
        with _gathered(module.parameters() if adapters else own.values()), torch.no_grad():
            for key, parameter in own.items():
                if keep:
                    value = parameter.detach().clone()
                    if adapters and key == "weight":
                        value += sum(module.get_delta_weight(adapter) for adapter in module.active_adapters)
                    state[f"{name}.{key}" if name else key] = value.cpu()
        for key, buffer in source.named_buffers(recurse=False):
            if keep and key not in source._non_persistent_buffers_set:
                state[f"{name}.{key}" if name else key] = buffer.detach().cpu()
    return state


def _gathered(parameters: Iterable[Any]) -> Any:
    cut = [p for p in parameters if hasattr(p, "ds_tensor") and p.numel() != p.ds_numel]
    if not cut:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(cut)
