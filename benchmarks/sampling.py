"""Tokens a second of our samplers against transformers' own `generate`, in turn, on the same prompts.

`make bench`, or `python -m benchmarks.sampling [--quick] [--json PATH] [--model MODEL] [--size 32x4x64 32x4x64r]
[--rounds N]`. Two baselines: `generate` alone, and with the log-probabilities of what it drew, which ours always have.
A token counts up to and with a completion's end. Without its file, a .gguf MODEL is random weights at the 270M's shape.
In the ragged sizes prompts differ in length up to 16 times, and a hook on the head lets completions end at any token
with the same chance, for all contenders alike but vLLM, whose engine it does not reach: it has no part in them.
Elsewhere they end where the model ends them. Before each round vLLM gets the weights anew (not timed), as in training,
so that it keeps nothing of earlier rounds.
"""

import argparse
import importlib.util
import math
import re
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.utils.logging import disable_progress_bar

from benchmarks.results import Row, print_rows, write_rows
from benchmarks.step import model_of
from benchmarks.turns import LONG
from gemsmith.policy.attention.attention import implementation
from gemsmith.policy.config import PolicyConfig, SamplerConfig, SamplingConfig
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.contract import Sampler
from gemsmith.policy.samplers.transformers_sampler import TransformersSampler
from gemsmith.policy.samplers.vllm_sampler import VllmSampler
from gemsmith.policy.text.chat import prompt_ids
from gemsmith.policy.text.tokenizer import tiny_tokenizer

Call = Callable[[int], int]


@dataclass(frozen=True)
class Size:
    """Amount of sampling: number of prompts, samples per prompt, tokens per sample; `ragged` as in the module's
    docstring.
    """

    prompts: int
    samples: int
    tokens: int
    ragged: bool = False

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Parse PROMPTSxSAMPLESxTOKENS from the command line, with an r at the end if ragged."""
        found = re.fullmatch(r"(\d+)x(\d+)x(\d+)(r?)", text)
        if not found or int(found[1]) < 2:
            raise argparse.ArgumentTypeError(f"{text!r} is no size: expected such as 32x4x64 or 32x4x64r")
        return cls(int(found[1]), int(found[2]), int(found[3]), ragged=bool(found[4]))

    def name(self, label: str, prompts: Sequence[list[int]]) -> str:
        """For the table."""
        lengths = [len(prompt) for prompt in prompts]
        of = f"{'ragged, ' if self.ragged else ''}{self.prompts} prompts of {min(lengths)} to {max(lengths)} tokens"
        return f"{label}: {of} x {self.samples} samples of {'1 to ' if self.ragged else ''}{self.tokens} tokens"


QUICK = [Size(32, 3, 16)]
SMALL = [Size(32, 3, 16), Size(128, 3, 16), Size(32, 8, 64), Size(32, 4, 64), Size(32, 4, 64, ragged=True)]
LARGE = [Size(32, 1, 64), Size(32, 4, 64), Size(32, 4, 64, ragged=True)]


class Logprobs(LogitsProcessor):
    """Log-probabilities of what `generate` draws, as frugal as can be: `output_logits` would keep 8 GB of a 270M's."""

    def __init__(self) -> None:
        self.found: list[Tensor] = []
        self._latest_BV: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Take those of the token drawn last, and keep the distribution of the next."""
        self.take(input_ids)
        self._latest_BV = scores.log_softmax(dim=-1)
        return scores

    def take(self, ids_BL: Tensor) -> None:
        """Return the logits of the last token."""
        if self._latest_BV is not None:
            self.found.append(self._latest_BV.gather(-1, ids_BL[:, -1:]))


def policy_of(model: str) -> Policy:
    """Return the policy of that name, or random weights at the 270M's shape if a .gguf file does not exist."""
    disable_progress_bar()
    if not model.endswith(".gguf") or Path(model).is_file():
        return load_policy(PolicyConfig(model=model))
    random = model_of(implementation("auto"), lora=False).eval()
    random.generation_config.eos_token_id = [1, 106]
    return Policy(random, tiny_tokenizer())


def prompts_of(policy: Policy, size: Size) -> list[list[int]]:
    """Return sums of two numbers, or ragged ones of 1 to 64 numbers; ragged prompts are in no order."""
    terms = [64 ** (13 * i % size.prompts / (size.prompts - 1)) if size.ragged else 2 for i in range(size.prompts)]
    sums = [" + ".join(str((7 * i + 11 * k) % 50) for k in range(round(count))) for i, count in enumerate(terms)]
    polite = ["" if size.ragged else " please" * (i % 4) for i in range(size.prompts)]
    questions = [f"{sum_} ={please}" for sum_, please in zip(sums, polite, strict=True)]
    return [prompt_ids(policy.tokenizer, [{"role": "user", "content": question}]) for question in questions]


@contextmanager
def ending_anywhere(policy: Policy, prompts: Sequence[list[int]], tokens: float) -> Iterator[None]:
    """Completions end after so many tokens on average: the end's logit is held where its chance is about 1 / tokens."""
    with torch.inference_mode():
        last_PV = torch.stack([policy.model(torch.tensor([prompt])).logits[0, -1] for prompt in prompts[:4]])
        level = float(last_PV.float().logsumexp(dim=-1).mean()) - math.log(tokens - 1)

    def hold(module: Any, args: Any, logits: Tensor) -> None:
        logits[..., policy.end_ids[1]] = level

    hook = policy.model.lm_head.register_forward_hook(hold)
    yield
    hook.remove()


def with_ours(sampler: Sampler, prompts: Sequence[list[int]], n: int) -> Call:
    """Return a call of one of our samplers that returns the number of sampled tokens."""
    return lambda seed: sum(len(ids) for ids in sampler.sample(list(prompts), n, seed).ids)


def with_generate(policy: Policy, prompts: Sequence[list[int]], n: int, max_tokens: int, logprobs: bool) -> Call:
    """Return the same with `generate`: left-padded prompts, n returned sequences each."""
    width = max(len(prompt) for prompt in prompts)
    ids_PL = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=policy.device)
    mask_PL = torch.tensor(
        [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=policy.device
    )
    ends = torch.tensor(policy.end_ids, device=policy.device)

    def call(seed: int) -> int:
        torch.manual_seed(seed)
        recorder = Logprobs()
        with torch.inference_mode():
            sequences = policy.model.generate(
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
                logits_processor=LogitsProcessorList([recorder] if logprobs else []),
            )
            recorder.take(sequences)
            drawn_ST = sequences[:, width:]
            ended_ST = torch.isin(drawn_ST, ends).cumsum(dim=1)
        return int(((ended_ST - torch.isin(drawn_ST, ends).long()) == 0).sum())  # tokens up to and with the first end

    return call


def rates(
    contenders: dict[str, Call], samplers: Collection[Sampler], rounds: int, warm_up: int
) -> dict[str, list[float]]:
    """Tokens a second of each contender in each round; in a round they follow each other, so that load hits all."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(-warm_up, rounds):
        for sampler in samplers:
            sampler.sync()
        for name, call in contenders.items():
            begun = time.perf_counter()
            tokens = call(number + warm_up)
            seconds = time.perf_counter() - begun
            if seconds > LONG:
                print(f"  {name}: {tokens} tokens in {seconds:.0f} s", flush=True)
            if number >= 0:
                found[name].append(tokens / seconds)
    return found


def measure(
    policy: Policy, engine: VllmSampler | None, size: Size, rounds: int, label: str, warm_up: int = 1
) -> list[Row]:
    """Return the rates of our samplers against both baselines; without an engine, only of ours in this process."""
    prompts = prompts_of(policy, size)
    config = SamplingConfig(max_tokens=size.tokens, batch=size.prompts * size.samples)
    samplers: dict[str, Sampler] = {"transformers": TransformersSampler(policy, config)}
    if engine and not size.ragged:
        engine.config = config
        samplers["vllm"] = engine
    contenders = {name: with_ours(sampler, prompts, size.samples) for name, sampler in samplers.items()}
    asked = (policy, prompts, size.samples, size.tokens)
    contenders["generate"] = with_generate(*asked, logprobs=False)
    contenders["generate with log-probabilities"] = with_generate(*asked, logprobs=True)
    with ending_anywhere(policy, prompts, size.tokens / 3) if size.ragged else nullcontext():
        found = rates(contenders, samplers.values(), rounds, warm_up)
    median = {name: statistics.median(values) for name, values in found.items()}
    rows = []
    for ours in samplers:
        name = size.name(f"{label}, {ours}", prompts)
        spread = (max(found[ours]) - min(found[ours])) / 2
        rivals = [name for name in contenders if name not in samplers]
        rows += [Row(name, median[ours], "tokens/s", rival, median[rival], spread) for rival in rivals]
    return rows


def engine_of(policy: Policy, sizes: Sequence[Size]) -> VllmSampler | None:
    """vLLM, started, where it is installed and has a part in one of the sizes."""
    batch = max((size.prompts * size.samples for size in sizes if not size.ragged), default=0)
    if not batch or importlib.util.find_spec("vllm") is None:
        return None
    return VllmSampler(policy, SamplingConfig(batch=batch), SamplerConfig(), say=print)


def main() -> None:
    """Run what the command line asks for, print the rows, and write them where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one size, three rounds: seconds")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--model", default="tiny", help="tiny, a folder, a hub id, or a .gguf file")
    parser.add_argument("--size", nargs="+", type=Size.parse, help="prompts x samples x tokens, such as 32x4x64r")
    parser.add_argument("--rounds", type=int, help="none: 7 of `tiny`, 1 of a larger model, which takes minutes")
    options = parser.parse_args()
    policy = policy_of(options.model)
    tiny = options.model == "tiny"
    rounds = options.rounds or (3 if options.quick else 7 if tiny else 1)
    sizes = options.size or (QUICK if options.quick else SMALL if tiny else LARGE)
    label = Path(options.model).stem
    engine = engine_of(policy, sizes)
    with closing(engine) if engine else nullcontext():
        if not tiny:  # libraries and threads; a whole warm-up would double the minutes
            measure(policy, engine, Size(4, 2, 2), 1, label, warm_up=0)
        warm_up = 1 if tiny else 0
        rows = [row for size in sizes for row in measure(policy, engine, size, rounds, label, warm_up)]
    print_rows(rows, "sampling: ours against transformers' generate (median of rounds, ± half the range)")
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
