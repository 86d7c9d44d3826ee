"""Descriptions of how an RL stage estimates its sampled metrics, written next to the metrics for reports."""

import json
from collections.abc import Sequence
from typing import Any

from gemsmith.contracts.processes import rank
from gemsmith.contracts.stage import Stage, write_atomically
from gemsmith.rl.algorithms.rollout_config import K1, RolloutConfig

FILE = "estimators.json"
ENTROPY = "sampled: mean over the policy's completions of -log policy(y) / tokens of y, in nats per token"


def estimators_of(config: RolloutConfig) -> dict[str, str]:
    """Return the description of each sampled metric that a stage with this configuration logs, by name."""
    return {"kl_to_initial": K1.format("initial"), "entropy": ENTROPY, **config.estimators()}


def record_estimators(configs: Sequence[RolloutConfig], stage: Stage) -> None:
    """Write estimators.json into the stage's folder, from the first process only.

    All of them are unbiased: completions are scored at the temperature that they are sampled at, and configurations
    refuse top_p and top_k.

    Args:
        configs: configurations of the stage's trainings; different descriptions of a metric are joined by "; or ".
        stage: the stage that logs the metrics.
    """
    if rank():
        return
    each = [estimators_of(config) for config in configs]
    names = dict.fromkeys(name for estimators in each for name in estimators)
    record: dict[str, Any] = {name: "; or ".join(dict.fromkeys(e[name] for e in each if name in e)) for name in names}
    write_atomically(stage.folder / FILE, json.dumps(record, indent=1) + "\n")
