"""Program that runs one stage and can signal itself at a step: killable.py FOLDER KIND STEP[:SIGNAL] [ZERO]."""

import importlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemsmith.contracts.stage import Stage, StageConfig
from gemsmith.contracts.stopping import Stopped, stop_request
from gemsmith.curation.config import ReasoningGymData
from gemsmith.policy.config import DeepSpeedConfig, EngineConfig, LoraConfig, PolicyConfig
from gemsmith.rl.algorithms.bond_config import BondAlgorithm
from gemsmith.rl.rewards.config import MathReward, PythonReward
from gemsmith.rl.stages.distill.config import DistillStage
from gemsmith.rl.stages.generate.config import GenerateStage
from gemsmith.rl.stages.qat.config import QatStage
from gemsmith.rl.stages.reinforcement.config import BondStage, ReinforceStage
from gemsmith.rl.stages.sft.config import SftStage
from gemsmith.rl.stages.warp.config import WarpStage
from tests.shallow import make_tiny_shallow

TINY = PolicyConfig(model="tiny")
TRAINING: dict[str, Any] = {"data": "sums", "steps": 6, "batch": 4, "learning_rate": 1e-3, "save_every": 2}
ROLLOUTS: dict[str, Any] = {**TRAINING, "rewards": ["correct", "short"], "sampling": {"max_tokens": 4}}
CLASSIFIED: dict[str, Any] = {"form": "bond", "n": 3, "quantile": "classifier", "anchor": "periodic", "anchor_every": 3}
CLASSIFIED |= {"gamma": 0.5, "lora": LoraConfig(rank=2, alpha=4, dropout=0.1)}
GRPO: dict[str, Any] = {"samples": 4, "baseline": "group_mean", "scale": "std", "length_norm": "sequence", "updates": 2}
GRPO |= {"kl_in": "loss", "kl": 0.04, "clip": [0.01, 0.01], "unfinished_penalty": 1}
OWN_WORDS: dict[str, Any] = {"on_policy": 0.5, "divergence": "jsd", "jsd_beta": 0.9, "average": "sequences"}
OWN_WORDS |= {"rewards": ["correct"], "sampling": {"max_tokens": 4}}
STAGES: dict[str, StageConfig] = {
    "generate": GenerateStage(
        id="s",
        kind="generate",
        policy=TINY,
        data="sums",
        keep=2,
        rewards=["short"],
        sampling={"max_tokens": 24, "batch": 32},
    ),
    "sft": SftStage(id="s", kind="sft", policy=TINY, **TRAINING),
    "distill": DistillStage(id="s", kind="distill", policy=TINY, teacher=TINY, sampled_logits=16, **TRAINING),
    "distill:own": DistillStage(id="s", kind="distill", policy=TINY, teacher=TINY, **OWN_WORDS, **TRAINING),
    "qat": QatStage(id="s", kind="qat", policy=TINY, format="q4_0", held_out=4, **TRAINING),
    "bond": BondStage(id="s", kind="bond", policy=TINY, anchor_rate=0.3, **ROLLOUTS),
    "bond:classifier": BondStage(id="s", kind="bond", policy=TINY, **CLASSIFIED, **ROLLOUTS),
    "reinforce": ReinforceStage(id="s", kind="reinforce", policy=TINY, **ROLLOUTS),
    "grpo": ReinforceStage(id="s", kind="reinforce", policy=TINY, **GRPO, **ROLLOUTS),
    "warp": WarpStage(
        id="s",
        kind="warp",
        policy=TINY,
        runs=2,
        iterations=2,
        inner=BondAlgorithm(kind="bond", anchor_rate=0.3, **ROLLOUTS),
    ),
}


class Killer:
    """A sink that sends its process a signal after a number of progress messages."""

    def __init__(self, after: int, sent: signal.Signals) -> None:
        self.left, self.sent = after, sent

    def progress(self, done: int, total: int, unit: str, shown: Mapping[str, float]) -> None:
        """Count the message, and send the signal at the last one."""
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.sent)

    def say(self, message: str) -> None:
        """Ignore the message."""


def main(folder: Path, kind: str, when: str, zero: str = "") -> None:
    """Run the stage `kind` in `folder`, under ZeRO stage `zero`.

    `when` is the step at which the process gets a signal (0: never), SIGKILL or the one named after a colon, as in
    "3:SIGTERM". A stage that was stopped writes where it continues to stopped.txt.
    """
    after, _, sent = when.partition(":")
    killer = Killer(int(after), signal.Signals[sent or "SIGKILL"])
    make_tiny_shallow()
    sums = ReasoningGymData(
        source="reasoning_gym",
        task="chain_sum",
        size=60,
        options={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
        prompt="{metadata[expression]} =",
        synthesise={"right": 0.5},
    )
    short = PythonReward(kind="python", target="short.py:short", normalise="running")
    rewards = {"correct": MathReward(kind="math"), "short": short}
    (folder / "short.py").write_text(
        "def short(prompts, completions, **columns):\n    return [-len(c) for c in completions]\n"
    )
    engine = EngineConfig(deepspeed=DeepSpeedConfig(zero=int(zero))) if zero else EngineConfig()
    data = {"sums": sums}
    stage = Stage("s", folder, 3, root=folder, data=data, rewards=rewards, engine=engine, sink=killer)
    config = STAGES[kind]
    module, _, function = config.entry.partition(":")
    try:
        with stop_request.watched():
            getattr(importlib.import_module(module), function)(config, stage)
    except Stopped as stopped:
        (folder / "stopped.txt").write_text(str(stopped))
        sys.exit(128 + (stop_request.signal or 0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
