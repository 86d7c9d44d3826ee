"""The check that a GGUF file holds its policy: bytes, weights and log-probabilities, read back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from torch import nn

from gemsmith.contracts.errors import RunError
from gemsmith.export.gguf_model import read_back, stored, stored_tensors
from gemsmith.export.llama_cpp import ask_llama_cpp
from gemsmith.export.proof import Sequences, logprobs, prompts
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.quantised import Scheme


def check_gguf(path: Path, policy: Policy, scheme: Scheme, sequences: Sequences, mark: Scheme | None) -> dict[str, Any]:
    """Read the file back with the gguf package and with transformers, and compare it with the policy.

    Every tensor must have the bytes that were written, and every weight that transformers reads must have the value
    that the format gives. With those weights the policy in memory must give the same log-probabilities, bit for bit.

    Args:
        path: the file.
        policy: the policy in float32; it is not changed.
        scheme: formats of the file.
        sequences: sequences with the log-probabilities of the policy.
        mark: quantisation mark in the policy's folder; weights on the file's grid must not change by rounding.

    Returns:
        Entries for `export.json`; `gap` and `mean_gap` are the largest and the mean difference of a token's
        log-probability from the policy's, in nats: the cost of the format.

    Raises:
        RunError: something differs.
    """
    _check_bytes(path, policy, scheme)
    try:
        reloaded = load_policy(PolicyConfig(model=str(path), dtype="float32", attention="sdpa"))
    except Exception as error:
        raise RunError(f"the GGUF file {path} does not load in transformers: {error}") from error
    reloaded.model.set_attn_implementation(policy.model.config._attn_implementation)
    reloaded.model.to(policy.device)
    moved = _check_weights(path, policy, reloaded, scheme)
    if mark is not None and mark.format == scheme.format and moved:
        raise RunError(
            f"the policy's folder says that its weights are on the grid of {mark.format}, but rounding changed "
            f"{moved[0]}: the weights were changed later. Run the qat stage again, or remove quantisation.json"
        )
    if prompts(reloaded.tokenizer) != prompts(policy.tokenizer):
        raise RunError(f"the GGUF file {path} is not complete: its tokenizer writes prompts differently")
    found_ST = logprobs(reloaded.model, sequences.prompts, sequences.completions)
    with _weights_of(reloaded.model, policy.model):
        expected_ST = logprobs(policy.model, sequences.prompts, sequences.completions)
    if not torch.equal(found_ST, expected_ST):
        gap = (found_ST - expected_ST).abs().max().item()
        raise RunError(
            f"the GGUF file {path} is read as a different model: with equal weights a token's log-probability "
            "differs by "
            f"{gap:.3g} nats"
        )
    gap_ST = (found_ST - sequences.logprobs_ST).abs()
    return {
        "file": path.name,
        "matrices": scheme.format,
        "embedding": scheme.embedding,
        "bytes": path.stat().st_size,
        "moved": len(moved),
        "gap": gap_ST.max().item(),
        "mean_gap": gap_ST.sum().item() / sum(len(completion) for completion in sequences.completions),
        "llama_cpp": ask_llama_cpp(path, reloaded, sequences),
    }


def _check_bytes(path: Path, policy: Policy, scheme: Scheme) -> None:
    try:
        found = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise RunError(f"the GGUF file {path} cannot be read back: {error}") from error
    for name, kind, weight in stored_tensors(policy, scheme):
        tensor = found.pop(name, None)
        if tensor is None or tensor.tensor_type.name.lower() != kind:
            raise RunError(f"the GGUF file {path} does not hold {name} in {kind}")
        if not np.array_equal(tensor.data.reshape(-1), stored(weight, kind).reshape(-1)):
            raise RunError(f"the GGUF file {path} holds other bytes of {name} than were written")
    if found:
        raise RunError(f"the GGUF file {path} holds {min(found)}, which the policy does not have")


def _check_weights(path: Path, policy: Policy, reloaded: Policy, scheme: Scheme) -> list[str]:
    """Check that all quantised tensors have the values of their format; return the names of those that rounding
    changed.
    """
    found, moved = reloaded.model.state_dict(), []
    own = policy.model.state_dict()
    if set(found) != set(own):
        raise RunError(f"the GGUF file {path} is read with other tensors: {min(set(found) ^ set(own))}")
    for name, weight in own.items():
        expected = read_back(name, weight, scheme)
        if not torch.equal(found[name], expected):
            raise RunError(f"the GGUF file {path} is read with other values of {name} than its format defines")
        if scheme.of(name) == scheme.format and not torch.equal(expected, weight):
            moved.append(name)
    return moved


@contextmanager
def _weights_of(source: nn.Module, model: nn.Module) -> Iterator[None]:
    """Run the block with the weights of the source in the model; nothing is copied."""
    own = {name: parameter.data for name, parameter in model.named_parameters()}
    try:
        for name, parameter in source.named_parameters():
            model.get_parameter(name).data = parameter.data
        yield
    finally:
        for name, data in own.items():
            model.get_parameter(name).data = data
