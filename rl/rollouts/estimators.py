"""How the sampled metrics of an RL stage are estimated, written beside them for reports and readers."""

import json
from collections.abc import Sequence
from typing import Any

from gemsmith.contracts.processes import rank
from gemsmith.contracts.stage import Stage, write_atomically
from gemsmith.rl.algorithms.rollout_config import K1, RolloutConfig

FILE = "estimators.json"
ENTROPY = "sampled: mean over the policy's completions of -log policy(y) / tokens of y, in nats a token"


def estimators_of(config: RolloutConfig) -> dict[str, str]:
    """What each metric is the estimate of, by name; only those that this configuration gives."""
    return {"kl_to_initial": K1.format("initial"), "entropy": ENTROPY, **config.estimators()}


def record_estimators(configs: Sequence[RolloutConfig], stage: Stage) -> None:
    """Write estimators.json into the stage's folder, from the first process.

    `own_distribution` says whether completions are drawn from the policy as it is (temperature 1, no top_p or top_k):
    only there are the KLs and the entropy unbiased.

    Args:
        configs: of the stage's trainings.
        stage: whose folder.
    """
    if rank():
        return
    each = [estimators_of(config) for config in configs]
    names = dict.fromkeys(name for one in each for name in one)
    found: dict[str, Any] = {name: "; or ".join(dict.fromkeys(e[name] for e in each if name in e)) for name in names}
    found["own_distribution"] = all(config.sampling.plain for config in configs)
    write_atomically(stage.folder / FILE, json.dumps(found, indent=1) + "\n")
