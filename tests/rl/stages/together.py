"""Program that trains cases in turn, alone or as one of several processes: together.py FOLDER CASE...

A single process records its completions beside the folder. Several processes, started by torch's launcher, sample too
but train on the recorded completions, because a single token changed by rounding would hide every other difference.

A case is KIND:ENGINE[:lora], such as bond:3:lora or sft:plain; 3offload is ZeRO-3 with the optimiser offloaded.
"""

import importlib
import json
import random
import runpy
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gemsmith.contracts.processes import count, rank
from gemsmith.contracts.stage import Stage, StageConfig
from gemsmith.curation.config import JsonLinesData, ReasoningGymData
from gemsmith.policy.config import DeepSpeedConfig, EngineConfig, LoraConfig, PolicyConfig
from gemsmith.policy.samplers.contract import Samples
from gemsmith.policy.samplers.transformers_sampler import TransformersSampler
from gemsmith.policy.training.processes import initialise_processes, wait_for_all
from gemsmith.reward_models.config import WarmStage
from gemsmith.rl.algorithms.bond_config import BondAlgorithm
from gemsmith.rl.rewards.config import PythonReward
from gemsmith.rl.stages.distill.config import DistillStage
from gemsmith.rl.stages.reinforcement.config import BondStage, ReinforceStage
from gemsmith.rl.stages.sft.config import SftStage
from gemsmith.rl.stages.warp.config import WarpStage

SAMPLE = TransformersSampler.sample
TINY = PolicyConfig(model="tiny")
TRAINING: dict[str, Any] = {"steps": 3, "batch": 4, "learning_rate": 2e-4, "save_every": 100, "max_length": 128}
ROLLOUTS: dict[str, Any] = {**TRAINING, "data": "sums", "rewards": ["even"], "sampling": {"max_tokens": 6}}
REWARD = """
def even(prompts, completions, **columns):
    return [sum(map(ord, c)) % 7 / 7 for c in completions]
"""


def stage_config(kind: str, lora: bool) -> StageConfig:
    """Return a small stage of the kind, on `tiny`."""
    more: dict[str, Any] = {"lora": LoraConfig(rank=4, alpha=8)} if lora else {}
    if kind == "sft":
        return SftStage(id="s", kind="sft", policy=TINY, data="sums", **TRAINING, **more)
    if kind == "distill":
        teacher = PolicyConfig(model="tiny", size="large")
        fields = {**TRAINING, "data": "sums", "sampled_logits": 16, **more}
        return DistillStage(id="s", kind="distill", policy=TINY, teacher=teacher, **fields)
    if kind == "gkd":  # some steps are on-policy
        teacher = PolicyConfig(model="tiny", size="large")
        more |= {"on_policy": 0.5, "divergence": "jsd", "jsd_beta": 0.9, "rewards": ["even"], "samples": 3}
        fields = {**TRAINING, "data": "sums", "sampling": ROLLOUTS["sampling"], **more}
        return DistillStage(id="s", kind="distill", policy=TINY, teacher=teacher, **fields)
    if kind == "warm":
        fields = {**TRAINING, "members": 2, "dropouts": [0.0], "probe_steps": 3, **more}
        return WarmStage(id="s", kind="warm", policy=TINY, data="pairs", **fields)
    if kind == "bond":
        return BondStage(id="s", kind="bond", policy=TINY, anchor_rate=0.3, **ROLLOUTS, **more)
    if kind == "iterated":
        fields = {"form": "bond", "n": 3, "quantile_samples": 4, "anchor": "periodic", "anchor_every": 2}
        return BondStage(id="s", kind="bond", policy=TINY, **fields, **ROLLOUTS, **more)
    if kind == "grpo":
        more |= {"samples": 4, "baseline": "group_mean", "scale": "std", "updates": 3, "kl_in": "loss", "kl": 0.04}
        return ReinforceStage(id="s", kind="reinforce", policy=TINY, clip=[0.01, 0.01], **ROLLOUTS, **more)
    if kind == "reinforce":
        return ReinforceStage(id="s", kind="reinforce", policy=TINY, kl_to="anchor", **ROLLOUTS, **more)
    inner = BondAlgorithm(kind="bond", anchor_rate=0.3, **{**ROLLOUTS, "steps": 2}, **more)
    front = {"front": [1.0], "front_prompts": 5}  # an odd number of prompts: the processes' shares differ
    return WarpStage(id="s", kind="warp", policy=TINY, runs=2, iterations=2, inner=inner, **front)


def recorded(sample: Any, folder: Path) -> Any:
    """Wrap the sampler's method: record the samples of one process, and replay them in several processes."""

    def replayed(
        self: Any, prompts: list[list[int]], n: int, seed: int, weights: str = "policy", before: int = 0
    ) -> Samples:
        drawn = sample(self, prompts, n, seed, weights=weights, before=before)
        file = folder / f"{seed}-{weights}.json"
        if count() == 1:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(asdict(drawn)))
            return drawn
        kept = {key: rows[before : before + len(drawn.ids)] for key, rows in json.loads(file.read_text()).items()}
        same = sum(mine == its for mine, its in zip(drawn.ids, kept["ids"], strict=True))
        assert 2 * same >= len(drawn.ids), f"only {same} of {len(drawn.ids)} completions are those of one process"
        return Samples(**kept)

    return replayed


def engine_of(name: str) -> EngineConfig:
    """Return the engine: `plain`, or a ZeRO stage number, optionally followed by `offload`."""
    if name == "plain":
        return EngineConfig()
    zero, offload = name.removesuffix("offload"), name.endswith("offload")
    return EngineConfig.model_validate({"deepspeed": DeepSpeedConfig(zero=int(zero), offload_optimizer=offload)})


def prepare(folder: Path) -> None:
    """Write the files that the cases read."""
    folder.mkdir(parents=True)
    (folder / "even.py").write_text(REWARD)
    draw = random.Random(0)
    pairs = [sorted(draw.sample(range(10, 100), 2)) for _ in range(40)]
    rows = [{"prompt": f"Number {i}", "chosen": str(b), "rejected": str(a)} for i, (a, b) in enumerate(pairs)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def train(folder: Path, case: str) -> None:
    """Run one case in a folder of its name."""
    kind, engine, *more = case.split(":")
    sums = ReasoningGymData(
        source="reasoning_gym",
        task="chain_sum",
        size=61,
        options={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
        prompt="{metadata[expression]} =",
        synthesise={"right": 0.5},
        holdout=0.2,
    )
    pairs = JsonLinesData(source="jsonl", path="pairs.jsonl", chosen="{chosen}", rejected="{rejected}", holdout=0.1)
    stage = Stage(
        "s",
        folder / case.replace(":", "-"),
        3,
        root=folder,
        data={"sums": sums, "pairs": pairs},
        rewards={"even": PythonReward(kind="python", target="even.py:even")},
        engine=engine_of(engine),
    )
    TransformersSampler.sample = recorded(SAMPLE, folder.parent / "drawn" / "-".join([kind, *more]))  # type: ignore
    config = stage_config(kind, "lora" in more)
    module, _, function = config.entry.partition(":")
    getattr(importlib.import_module(module), function)(config, stage)


def main(folder: Path, cases: list[str]) -> None:
    """Run the cases; their losses are in each one's metrics.jsonl, their weights in its output."""
    if "tests" not in sys.modules:  # started by torch's launcher, without pytest
        runpy.run_path(str(Path(__file__).parents[2] / "conftest.py"))
    importlib.import_module("tests.shallow").make_tiny_shallow()
    if rank() == 0 and not folder.exists():
        prepare(folder)
    initialise_processes()
    wait_for_all()
    for case in cases:
        train(folder, case)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
