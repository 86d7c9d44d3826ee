"""Scores of the members of WARM put together: the baseline that their average in weight space stands in for.

Coste et al. (2023, arXiv 2310.02743) take the mean, the minimum (their worst case), or the mean less the members'
disagreement, which they measure by the variance; here it is the standard deviation, which has the unit of a reward.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Literal

from gemsmith.contracts.errors import UserError

MEMBERS = "members"
SUMMARY = "warm.json"
Combination = Literal["mean", "minimum", "lower_bound"]


@dataclass(frozen=True)
class Member:
    """A member that was averaged: its folder, and its mean reward on the held-out completions."""

    folder: Path
    mean_reward: float


def kept_members(output: Path) -> list[Member]:
    """The members whose average is `output`, best first.

    They stay in the folder of the stage, beside its output, and are not part of it: a copy of the output has none.

    Raises:
        UserError: `output` is not what a `warm` stage wrote, or the members are not beside it.
    """
    try:
        found = json.loads((output / SUMMARY).read_text())
        mean_rewards = {member["member"]: member["mean_reward"] for member in found["members"]}
        members = [Member(output.parent / MEMBERS / str(name), mean_rewards[name]) for name in found["kept"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{output / SUMMARY} does not tell which members were averaged: name the output of a `warm` stage, or "
            "serve the average."
        ) from error
    for member in members:
        if not member.folder.is_dir():
            raise UserError(
                f"{member.folder} is not there: the members lie in the folder of the `warm` stage and are not copied "
                "with its output; name the stage's own output, or serve the average."
            )
    return members


def combine(
    rewards_MS: Sequence[Sequence[float]],
    mean_rewards_M: Sequence[float],
    how: Combination,
    deviations: float = 1.0,
) -> list[float]:
    """One reward a completion from those of M members.

    Preferences leave the offset of a reward open, so that each member has its own. It is taken from the mean rewards,
    and the mean of the offsets is put in its place; otherwise the minimum would be that of the lowest offset.

    Args:
        rewards_MS: rewards of S completions by each member.
        mean_rewards_M: each member's mean reward on the same completions, such as the held-out ones.
        how: the mean, the least, or the mean minus `deviations` standard deviations (of the population) of the members.
        deviations: at least 0.
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
