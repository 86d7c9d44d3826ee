"""Tokens a second of our sampler against transformers' own `generate`, in turn, on the same prompts.

`make bench`, or `python -m benchmarks.sampling [--quick] [--json PATH] [--model MODEL]`. Two baselines: `generate`
alone, and `generate` with the log-probabilities of the drawn tokens, which our sampler always returns.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.results import Row, print_rows, write_rows
from policy.chat import prompt_ids
from policy.config import PolicyConfig, SamplingConfig
from policy.load import load_policy
from policy.policy import Policy
from policy.samplers.transformers_sampler import TransformersSampler

WARM_UP, OURS = 1, "gemsmith"


def with_ours(policy: Policy, prompts: Sequence[list[int]], n: int, max_tokens: int) -> Callable[[int], int]:
    """A call of our sampler that returns the number of tokens drawn."""
    sampler = TransformersSampler(policy, SamplingConfig(max_tokens=max_tokens, batch=len(prompts) * n))
    return lambda seed: sum(len(ids) for ids in sampler.sample(list(prompts), n, seed).ids)


def with_generate(
    policy: Policy, prompts: Sequence[list[int]], n: int, max_tokens: int, logprobs: bool
) -> Callable[[int], int]:
    """The same with `generate`: left-padded prompts, n returned sequences each."""
    width = max(len(prompt) for prompt in prompts)
    ids_PL = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=policy.device)
    mask_PL = torch.tensor(
        [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=policy.device
    )
    ends = torch.tensor(policy.end_ids, device=policy.device)

    def call(seed: int) -> int:
        torch.manual_seed(seed)
        with torch.inference_mode():
            out = policy.model.generate(
                input_ids=ids_PL,
                attention_mask=mask_PL,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                num_return_sequences=n,
                max_new_tokens=max_tokens,
                eos_token_id=list(policy.end_ids),
                pad_token_id=0,
                return_dict_in_generate=True,
                output_logits=logprobs,
            )
            drawn_ST = out.sequences[:, width:]
            if logprobs:
                logits_STV = torch.stack(out.logits, dim=1).float()
                logits_STV.log_softmax(dim=-1).gather(-1, drawn_ST.unsqueeze(-1))
            ended_ST = torch.isin(drawn_ST, ends).cumsum(dim=1)
        return int(((ended_ST - torch.isin(drawn_ST, ends).long()) == 0).sum())  # tokens up to and with the first end

    return call


def rates(contenders: dict[str, Callable[[int], int]], rounds: int) -> dict[str, list[float]]:
    """Tokens a second of each contender in each round; in a round they follow each other, so that load hits all."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(-WARM_UP, rounds):
        for name, call in contenders.items():
            begun = time.perf_counter()
            tokens = call(number + WARM_UP)
            if number >= 0:
                found[name].append(tokens / (time.perf_counter() - begun))
    return found


def measure(policy: Policy, size: tuple[int, int, int], rounds: int, label: str) -> list[Row]:
    """Our rate against both baselines, for `size` prompts, samples of each, and tokens of each sample."""
    count, n, max_tokens = size
    questions = [f"{7 * i % 50} + {11 * i % 50} =" + " please" * (i % 4) for i in range(count)]
    prompts = [prompt_ids(policy.tokenizer, [{"role": "user", "content": question}]) for question in questions]
    contenders = {OURS: with_ours(policy, prompts, n, max_tokens)}
    contenders["generate"] = with_generate(policy, prompts, n, max_tokens, logprobs=False)
    contenders["generate with log-probabilities"] = with_generate(policy, prompts, n, max_tokens, logprobs=True)
    found = rates(contenders, rounds)
    median = {name: statistics.median(values) for name, values in found.items()}
    spread = (max(found[OURS]) - min(found[OURS])) / 2
    name = f"{label}: {count} prompts x {n} samples of {max_tokens} tokens"
    return [Row(name, median[OURS], "tokens/s", other, median[other], spread) for other in contenders if other != OURS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one size, three rounds: seconds")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--model", default="tiny", help="tiny, a folder, a hub id, or a .gguf file")
    options = parser.parse_args()
    policy = load_policy(PolicyConfig(model=options.model))
    sizes = [(32, 3, 16)] if options.quick else [(32, 3, 16), (128, 3, 16), (32, 8, 64)]
    rows = [row for size in sizes for row in measure(policy, size, 3 if options.quick else 7, options.model)]
    print_rows(rows, "sampling: ours against transformers' generate (median of rounds, ± half the range)")
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
