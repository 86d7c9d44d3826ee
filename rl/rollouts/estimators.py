"""How the sampled metrics of an RL stage are estimated, written beside them for reports and readers."""

import json
from collections.abc import Sequence
from typing import Any

from gemsmith.contracts.processes import rank
from gemsmith.contracts.stage import Stage, write_atomically
from gemsmith.rl.algorithms.config import BondAlgorithm, ReinforceAlgorithm, RolloutConfig

FILE = "estimators.json"
K1 = "k1, sampled: mean over the policy's completions of log policy(y) - log {}(y), in nats a completion"
ENTROPY = "sampled: mean over the policy's completions of -log policy(y) / tokens of y, in nats a token"
QUANTILE = "mean of log((c + 1/2) / (k + 1/2)), where c of {} completions of the anchor are not better, in nats"
CLASSIFIER = "mean log p of a classifier of completions, in nats"
TOKENS = {"k2": "k2: mean over tokens of x^2 / 2", "k3": "k3: mean over tokens of exp(-x) + x - 1"}


def estimators_of(config: RolloutConfig) -> dict[str, str]:
    """What each metric is the estimate of, by name; only those that this configuration gives."""
    found = {"kl_to_initial": K1.format("initial"), "entropy": ENTROPY}
    if isinstance(config, BondAlgorithm):
        learnt = config.quantile == "classifier"
        found |= {"kl_to_anchor": K1.format("anchor")}
        found |= {"log_quantile": CLASSIFIER if learnt else QUANTILE.format(f"k = {config.anchor_samples_compared}")}
    if isinstance(config, ReinforceAlgorithm):
        if config.kl_to == "anchor":
            found["kl_to_anchor"] = K1.format("anchor")
        if config.kl_in == "loss" and config.kl:
            told = TOKENS[config.kl_estimator or "k3"]
            found["kl_loss"] = f"{told}, x = log policy - log {config.kl_to}, in nats a token"
    return found


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
