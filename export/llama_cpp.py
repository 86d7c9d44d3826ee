"""Comparison of a GGUF file with llama.cpp's output, through xllamacpp where it is installed."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from gemsmith.contracts.errors import RunError
from gemsmith.contracts.processes import killed_by
from gemsmith.export.proof import Sequences
from gemsmith.policy.head.logprobs import completion_hidden
from gemsmith.policy.head.tiled_matmul import chunk_logits
from gemsmith.policy.policy import Policy

ENTRIES = 10  # likeliest ones that are compared at each place
PLACES = 12  # of each completion
# Nats, in the mean: llama.cpp multiplies 8-bit and 4-bit weights by activations that it rounds to eight bits.
TOLERANCE = 0.2
LIMIT = 1800.0  # seconds


def ask_llama_cpp(path: Path, reloaded: Policy, sequences: Sequences) -> dict[str, Any]:
    """Compare llama.cpp's most likely entries after the first tokens of each sequence with the file's own weights.

    Args:
        path: the GGUF file.
        reloaded: its weights, as transformers loads them.
        sequences: the tokens; the log-probabilities are not used.

    Returns:
        Entries for `export.json`: `run`, and `gap` and `mean_gap` of a log-probability in nats over `compared` entries;
            or
        the `reason` why llama.cpp was not run.

    Raises:
        RunError: llama.cpp is installed, and does not load the file or gives other log-probabilities.
    """
    config = reloaded.model.config
    if config.head_dim != config.query_pre_attn_scalar:
        reason = f"it scales queries by the head size, {config.head_dim}, and the policy by "
        return {"run": False, "reason": f"{reason}{config.query_pre_attn_scalar}"}
    if importlib.util.find_spec("xllamacpp") is None:
        return {"run": False, "reason": "xllamacpp is not installed (pip install 'gemsmith[llama-cpp]')"}
    completions = [completion[:PLACES] for completion in sequences.completions]
    pairs = list(zip(sequences.prompts, completions, strict=True))
    asked = [[*prompt, *completion[:place]] for prompt, completion in pairs for place in range(len(completion))]
    with torch.no_grad():
        hidden_MD, weight_VD = completion_hidden(reloaded.model, sequences.prompts, completions)
        logprobs_MV = chunk_logits(hidden_MD, weight_VD).log_softmax(-1)
    text = reloaded.tokenizer.convert_tokens_to_ids("a")
    found = torch.tensor(_answers(path, asked, text), dtype=torch.float64)  # [M, entries, 2]
    own_MK = logprobs_MV.cpu().double().gather(-1, found[..., 0].long())
    gap_MK = (own_MK - found[..., 1]).abs()
    mean, largest = gap_MK.mean().item(), gap_MK.max().item()
    if not mean <= TOLERANCE:
        raise RunError(
            f"llama.cpp reads {path} as another model: the log-probabilities of its {ENTRIES} likeliest entries differ "
            f"by {mean:.3g} nats in the mean, and at most {largest:.3g}"
        )
    return {"run": True, "gap": largest, "mean_gap": mean, "compared": gap_MK.numel()}


def _answers(path: Path, asked: list[list[int]], text: int) -> list[list[tuple[int, float]]]:
    """Return the answers of llama.cpp in a child process, because a faulty file ends it with `abort`."""
    child = Path(__file__).with_name("llama_cpp_child.py")
    command = [sys.executable, "-I", str(child), str(path), *map(str, (torch.get_num_threads(), ENTRIES, text))]
    try:
        done = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(f"llama.cpp did not answer for {path} within {LIMIT:g} s") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line.partition(" E ")[2] for line in lines if " E " in line]  # the first is the cause of the others
        said = " / ".join(errors[:1] or lines[-3:]) or "it said nothing"
        how = killed_by(-done.returncode) if done.returncode < 0 else f"ended with {done.returncode}"
        raise RunError(f"llama.cpp {'was ' if done.returncode < 0 else ''}{how} over {path}: {said}")
    answers: list[list[tuple[int, float]]] = json.loads(done.stdout)
    return answers
