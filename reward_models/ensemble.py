"""Ensembles of WARM's members by their scores: the baseline for their average in weight space.

Coste et al. (2023, arXiv 2310.02743) use the mean, the minimum (worst case), or the mean minus the members' variance.
Here the third subtracts standard deviations instead, which have the unit of a reward.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Literal

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.reading import reading

MEMBERS = "members"
SUMMARY = "warm.json"
Combination = Literal["mean", "minimum", "lower_bound"]


@dataclass(frozen=True)
class Member:
    """Member that is part of the average: its folder, and its mean reward on the held-out completions."""

    folder: Path
    mean_reward: float


def kept_members(output: Path) -> list[Member]:
    """Return the members whose average is `output`, best first.

    The members are in the stage's folder next to its output, so a copy of the output alone does not contain them.

    Raises:
        UserError: `output` is not the output of a `warm` stage, or the members are not next to it.
    """
    with reading(
        output / SUMMARY,
        "the summary of a `warm` stage with its averaged members",
        "name the output of one, or set `serve: average`",
    ):
        summary = json.loads((output / SUMMARY).read_text())
        mean_rewards = {member["member"]: member["mean_reward"] for member in summary["members"]}
        members = [Member(output.parent / MEMBERS / str(name), mean_rewards[name]) for name in summary["kept"]]
    for member in members:
        if not member.folder.is_dir():
            raise UserError(
                f"{member.folder} does not exist: the members are in the folder of the `warm` stage, and a copy of its "
                "output does not contain them; name the stage's own output, or set `serve: average`."
            )
    return members


def combine(
    rewards_MS: Sequence[Sequence[float]],
    mean_rewards_M: Sequence[float],
    how: Combination,
    deviations: float = 1.0,
) -> list[float]:
    """Combine the rewards of M members into one reward per completion.

    Preferences do not determine the offset of a reward, so each member has its own. Each member's mean reward is
    therefore replaced by the mean over the members; otherwise the member with the lowest offset would always be the
    minimum.

    Args:
        rewards_MS: rewards of S completions by each member, [M, S].
        mean_rewards_M: mean reward of each member on a common set of completions, such as the held-out ones.
        how: mean, minimum, or mean minus `deviations` population standard deviations of the members.
        deviations: number of standard deviations for "lower_bound", at least 0.

    Returns:
        S rewards.
    """
    together = fmean(mean_rewards_M)
    columns = [
        [reward - offset + together for reward, offset in zip(rewards_M, mean_rewards_M, strict=True)]
        for rewards_M in zip(*rewards_MS, strict=True)
    ]
    if how == "minimum":
        return [min(column) for column in columns]
    if how == "mean":
        return [sum(column) / len(column) for column in columns]
    return [sum(column) / len(column) - deviations * pstdev(column) for column in columns]
