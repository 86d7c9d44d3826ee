"""Seconds in which a trainer's weights reach vLLM, beside starting an engine anew with them.

`python -m benchmarks.hand_over [--quick] [--json PATH] [--model MODEL] [--rounds N]`: all weights and LoRA, the policy
alone and with its anchor. A hand-over is a `sync` and the switch to the anchor, each with a token drawn behind it, so
that the weights are in use.
"""

import argparse
import importlib.util
import statistics
import time
from pathlib import Path

from benchmarks.results import Row, print_rows, write_rows
from benchmarks.sampling import policy_of
from gemsmith.policy.config import LoraConfig, SamplerConfig, SamplingConfig
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.vllm_sampler import VllmSampler
from gemsmith.policy.training.lifecycle import trainable
from gemsmith.policy.weight_set import WeightSet

RIVAL = "starting an engine"


def measure(model: str, lora: bool, rounds: int) -> list[Row]:
    """Medians of `rounds` hand-overs, with the anchor and then without."""
    policy = policy_of(model)
    trained = trainable(policy, LoraConfig() if lora else None, seed=0)
    live, rows = Policy(trained, policy.tokenizer), []
    begun = time.perf_counter()
    with VllmSampler(live, SamplingConfig(max_tokens=1), SamplerConfig(), WeightSet(trained), say=print) as vllm:
        start = time.perf_counter() - begun
        for of in ("policy and anchor", "policy"):
            if of == "policy":
                vllm.anchor = None
            found = [_hand_over(vllm) for _ in range(rounds + 1)][1:]
            name = f"{Path(model).stem}, {'LoRA' if lora else 'all weights'}, {of}"
            rows.append(Row(name, statistics.median(found), "s", RIVAL, start, (max(found) - min(found)) / 2))
    return rows


def _hand_over(vllm: VllmSampler) -> float:
    begun = time.perf_counter()
    vllm.sync()
    vllm.sample([[2]], 1, seed=0)
    if vllm.anchor is not None:
        vllm.sample([[2]], 1, seed=0, weights="anchor")
    return time.perf_counter() - begun


def main() -> None:
    """Run what the command line asks for, print the rows, and write them where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="LoRA alone: a minute")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--model", default="tiny", help="tiny, a folder, a hub id, or a .gguf file")
    parser.add_argument("--rounds", type=int, default=5, help="hand-overs of each kind")
    options = parser.parse_args()
    if importlib.util.find_spec("vllm") is None:
        print("vLLM is not installed: there is nothing to hand weights to")
        return
    kinds = [True] if options.quick else [False, True]
    rows = [row for lora in kinds for row in measure(options.model, lora, options.rounds)]
    print_rows(rows, "weights handed over to vLLM: lower is better (median, ± half the range)")
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
