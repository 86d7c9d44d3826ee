"""Metrics of the raw rewards of a step's completions."""

import statistics
from collections.abc import Mapping, Sequence

from gemsmith.rl.rewards.config import RewardConfig
from gemsmith.rl.rewards.contributions import Raw


def share_metrics(spread: Mapping[str, float]) -> dict[str, float]:
    """Compute `reward/NAME_share`, each reward's share of the spread of the weighted sum; none for a single reward.

    Args:
        spread: see `Composed.spread`.
    """
    whole = sum(spread.values())
    if len(spread) < 2 or not whole:
        return {}
    return {f"reward/{name}_share": value / whole for name, value in spread.items()}


def reward_metrics(
    terms: Mapping[str, RewardConfig], raw: Raw, counted: Mapping[str, Sequence[bool]], control: Raw
) -> dict[str, float]:
    """Compute the reward metrics of the policy's completions.

    Args:
        terms: configuration of each reward.
        raw: raw rewards by name.
        counted: see `Composed.counted`.
        control: raw rewards that are not learned from, by name.

    Returns:
        `reward/NAME` and `reward/NAME_std`, mean and standard deviation over the completions where the reward applied;
        `reward/NAME_counted`, the share of completions where it applied and its gate was open, for rewards with a
        gate, tasks or normalisation, or where cut-off completions are left out; `control/NAME`, the mean of a control.
    """
    metrics: dict[str, float] = {}
    for name, values in raw.items():
        known = [value for value in values if value is not None]
        if known:
            metrics[f"reward/{name}"] = sum(known) / len(known)
            metrics[f"reward/{name}_std"] = statistics.pstdev(known)
        term = terms[name]
        partly = term.gate is not None or term.tasks is not None or term.cut_off == "none"
        if term.normalise != "none" or partly:
            metrics[f"reward/{name}_counted"] = sum(counted[name]) / len(values)
    for name, values in control.items():
        known = [value for value in values if value is not None]
        if known:
            metrics[f"control/{name}"] = sum(known) / len(known)
    return metrics
