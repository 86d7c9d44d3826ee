"""The check that an exported folder holds its policy: reloaded by plain transformers and compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.policy.config import SamplingConfig
from gemsmith.policy.head.logprobs import token_logprobs
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.transformers_sampler import TransformersSampler
from gemsmith.policy.text.chat import prompt_ids

PROMPTS = ("12 + 7 =", "What is the capital of France?", "Write one sentence about the sea.", "Hello!")
SAMPLES = 2  # completions for each prompt
MAX_TOKENS = 24
# Nats a token. The weights must be equal to the last bit in either format; what bfloat16 changes is the policy that is
# compared with, in float32: 8 significant bits of logits of about 30 are steps of 1/8, and every layer adds some.
TOLERANCE = {torch.float32: 0.0, torch.bfloat16: 0.5}
_BLOCK = 1 << 23  # elements compared at once


@dataclass(frozen=True)
class Sequences:
    """Sequences sampled from a policy, with the log-probability that it gives each token."""

    prompts: list[list[int]]
    completions: list[list[int]]
    logprobs_ST: Tensor


@dataclass(frozen=True)
class BaseDifference:
    """Distance of exported weights from their base: largest difference, and norm of the difference over the base's
    norm.
    """

    largest: float
    relative: float


def sample_sequences(policy: Policy, seed: int) -> Sequences:
    """Return a fixed small set of completions of the policy."""
    prompts = [prompt_ids(policy.tokenizer, [{"role": "user", "content": text}]) for text in PROMPTS]
    sampler = TransformersSampler(policy, SamplingConfig(max_tokens=MAX_TOKENS))
    completions = sampler.sample(prompts, SAMPLES, seed).ids
    repeated = [prompt for prompt in prompts for _ in range(SAMPLES)]
    return Sequences(repeated, completions, logprobs(policy.model, repeated, completions))


def reload(folder: Path, policy: Policy) -> Policy:
    """Return the exported policy as transformers loads it, in its stored format, on the device of `policy`.

    Raises:
        RunError: it does not load, or something that other tools need is missing.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", attn_implementation=policy.model.config._attn_implementation, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise RunError(f"the export in {folder} does not load in transformers: {error}") from error
    ends = model.generation_config.eos_token_id
    faults = {
        "the head is not tied to the embedding": model.lm_head.weight is not model.model.embed_tokens.weight,
        f"generation_config.json ends a completion at {ends}, expected {list(policy.end_ids)}": (
            ends != list(policy.end_ids)
        ),
        "the tokenizer has no chat template": not tokenizer.chat_template,
        "the tokenizer writes prompts differently": prompts(tokenizer) != prompts(policy.tokenizer),
    }
    for fault, found in faults.items():
        if found:
            raise RunError(f"the export in {folder} is not complete: {fault}")
    return Policy(model.to(policy.device).eval(), tokenizer)


def reload_gap(reloaded: Policy, policy: Policy, sequences: Sequences) -> float:
    """Return the largest difference of a token's log-probability between the reloaded policy and the one in memory, in
    nats.

    Args:
        reloaded: the policy that was read back.
        policy: the policy in memory, its weights already in the exported format.
        sequences: log-probabilities of the policy in float32.

    Raises:
        RunError: a weight differs, or the gap is above the tolerance (float32: 0; bfloat16: 0.5 nats per token).
    """
    written = policy.model.state_dict()
    for name, tensor in reloaded.model.state_dict().items():
        if name not in written or not torch.equal(tensor, written[name]):
            raise RunError(f"the export differs from the trained policy: {name} was read back with other values")
    found_ST = logprobs(reloaded.model, sequences.prompts, sequences.completions)
    gap = (found_ST - sequences.logprobs_ST).abs().max().item()
    tolerance = TOLERANCE[reloaded.model.dtype]
    if not gap <= tolerance:
        raise RunError(
            f"the reloaded export gives a token another log-probability than the policy: the largest gap is {gap:.3g} "
            f"nats, expected at most {tolerance}"
        )
    return gap


def difference_from_base(exported: Mapping[str, Tensor], base: Mapping[str, Tensor], name: str) -> BaseDifference:
    """Return the distance of the exported weights from the base, after the base is rounded to the exported format.

    Raises:
        UserError: the two have different architectures.
        RunError: they are equal: training changed nothing, or the wrong folder was exported.
    """
    if {key: tensor.shape for key, tensor in exported.items()} != {key: tensor.shape for key, tensor in base.items()}:
        raise UserError(
            f"the base {name} has another architecture; set `base` to the policy that the export was trained from"
        )
    largest, square, base_square = 0.0, 0.0, 0.0
    for key, tensor in exported.items():
        blocks = zip(tensor.reshape(-1).split(_BLOCK), base[key].reshape(-1).split(_BLOCK), strict=True)
        for ours, theirs in blocks:
            rounded = theirs.to(ours.dtype).double()
            gap = ours.double() - rounded
            largest = max(largest, gap.abs().max().item())
            square += gap.square().sum().item()
            base_square += rounded.square().sum().item()
    if largest == 0.0:
        dtype = next(iter(exported.values())).dtype
        raise RunError(
            f"the export equals its base {name} in every weight ({str(dtype).removeprefix('torch.')}): the training "
            "changed nothing, or the wrong policy was exported"
        )
    return BaseDifference(largest, (square / base_square) ** 0.5 if base_square else float("inf"))


def prompts(tokenizer: object) -> list[list[int]]:
    """Return the fixed prompts as token ids."""
    return [prompt_ids(tokenizer, [{"role": "user", "content": text}]) for text in PROMPTS]


def logprobs(model: torch.nn.Module, prompts: list[list[int]], completions: list[list[int]]) -> Tensor:
    """Return the log-probability of each completion token, [S, T], in nats, on the CPU; zero after a completion's
    end.
    """
    with torch.no_grad():
        logprobs_ST, mask_ST = token_logprobs(model, prompts, completions)
    return torch.where(mask_ST.bool(), logprobs_ST, 0.0).float().cpu()
