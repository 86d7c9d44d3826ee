"""Gain from sampling the next step's completions during training on this one: time per step, and final reward.

`python -m benchmarks.overlap [--quick] [--json PATH] [--model tiny] [--steps N]`: REINFORCE with vLLM on 64 prompts x 4
completions of 16 tokens, rewarded by the share of digits, once step by step and once overlapped, from the same seeds in
turn, a process each. The reward of the last fifth of the steps and the KL to the start show the cost of staleness.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.results import Row, print_rows, write_rows
from benchmarks.turns import MARK

PROMPTS, SAMPLES, TOKENS = 64, 4, 16
WAYS = {False: "step by step", True: "overlapped"}


class Digits:
    """The share of digits; it notes when it is asked, which is once a step."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def score(self, prompts: list[str], completions: list[str], columns: Any) -> list[float | None]:
        """See `Reward.score`."""
        self.asked.append(time.perf_counter())
        return [sum(letter.isdigit() for letter in text) / max(len(text), 1) for text in completions]

    def close(self) -> None:
        """Nothing to close."""


def train(overlap: bool, model: str, steps: int, seed: int) -> None:
    """One run; prints seconds a step, the last reward and the KL."""
    from gemsmith.contracts.stage import Stage
    from gemsmith.curation.example import Example
    from gemsmith.policy.config import PolicyConfig
    from gemsmith.policy.loading.load import load_policy
    from gemsmith.rl.rewards.compose import Rewards
    from gemsmith.rl.stages.reinforcement.config import ReinforceStage
    from gemsmith.rl.stages.reinforcement.stage import train_policy

    tiny = model == "tiny"
    prompts, tokens = (PROMPTS, TOKENS) if tiny else (8, 24)
    config = ReinforceStage.model_validate(
        {
            **{"id": "s", "kind": "reinforce", "data": "d", "rewards": ["digits"], "samples": SAMPLES, "kl": 0.01},
            **{"steps": steps, "batch": prompts, "learning_rate": 2e-3 if tiny else 1e-4, "schedule": "constant"},
            **{"sampling": {"max_tokens": tokens, "batch": prompts * SAMPLES}, "save_every": steps},
            **{"sampler": {"backend": "vllm", "cache_gib": 1}, "overlap": overlap, "importance_cap": 2},
            "lora": None if tiny else {"rank": 16, "alpha": 32},
        }
    )
    digits = Digits()
    examples = [Example(prompt=f"{7 * i % 50} + {11 * i % 50} =") for i in range(prompts)]
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage("s", Path(folder) / "stage", seed, root=Path(folder))
        policy, rewards = load_policy(PolicyConfig(model=model)), Rewards({"digits": digits}, {"digits": 1.0})
        train_policy(policy, config, stage, rewards, examples, Path(folder) / "checkpoints", Path(folder) / "output")
        rows = [json.loads(line) for line in (stage.folder / "metrics.jsonl").read_text().splitlines()]
    last = rows[-max(1, steps // 5) :]
    seconds = [later - earlier for earlier, later in zip(digits.asked[1:], digits.asked[2:], strict=False)]
    found = {"seconds": statistics.median(seconds)} | {
        name: statistics.mean(row[name] for row in last) for name in ("reward", "kl_to_initial")
    }
    found |= {
        name: statistics.mean(row.get(name, 0.0) for row in rows[1:-1])
        for name in ("drift", "importance", "truncated", "sampling_seconds", "sync_seconds", "logprob_seconds")
    }
    print(MARK + json.dumps(found), flush=True)


def run(overlap: bool, model: str, steps: int, seed: int) -> dict[str, float]:
    """Run the same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.overlap", "--model", model, "--steps", str(steps)]
    done = subprocess.run(
        [*command, "--contend", f"{int(overlap)},{seed}"], stdout=subprocess.PIPE, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    found: dict[str, float] = json.loads(lines[-1].removeprefix(MARK))
    print(f"{WAYS[overlap]}, seed {seed}: {', '.join(f'{name} {value:.4g}' for name, value in found.items())}")
    return found


def main() -> None:
    """Run what the command line asks for, print the rows, and write them where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one seed, few steps: a minute")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--model", default="tiny", help="tiny, a folder, a hub id, or a .gguf file (with LoRA)")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contend:
        overlap, seed = map(int, options.contend.split(","))
        train(bool(overlap), options.model, options.steps, seed)
        return
    steps, seeds = (6, 1) if options.quick else (options.steps, options.seeds)
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for seed in range(seeds):
        for overlap, runs in found.items():
            runs.append(run(overlap, options.model, steps, seed))
    rows = []
    for name, unit in (("seconds", "s"), ("reward", ""), ("kl_to_initial", "nats")):
        plain, ahead = ([one[name] for one in found[overlap]] for overlap in (False, True))
        spread = (max(ahead) - min(ahead)) / 2
        label = {"seconds": "a step", "reward": "reward at the end", "kl_to_initial": "KL to the start"}[name]
        rows.append(Row(label, statistics.mean(ahead), unit, WAYS[False], statistics.mean(plain), spread))
    print_rows(rows, f"overlap, {options.model}, {steps} steps, {seeds} seeds (means, ± half the range)")
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
