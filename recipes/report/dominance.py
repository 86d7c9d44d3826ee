"""The reward that dominates a stage's weighted sum, said in one sentence."""

from gemsmith.recipes.report.contents import StageContents
from gemsmith.recipes.report.markup import Content, element
from gemsmith.rl.rollouts.reward_hacking import is_number

MOST = 0.8
"""Share of the weighted sum's spread from which on a reward is said to dominate."""
_SHARE = "_share"


def dominant_reward(stage: StageContents) -> tuple[str, float] | None:
    """Return the name of the reward with most of the weighted sum's spread, and its mean share; None if none has most.

    The shares are the metrics `reward/NAME_share`, which a stage with several rewards logs.
    """
    sums: dict[str, list[float]] = {}
    for row in stage.metrics:
        for name, value in row.items():
            if name.startswith("reward/") and name.endswith(_SHARE) and is_number(value):
                sums.setdefault(name.removeprefix("reward/").removesuffix(_SHARE), []).append(value)
    means = {name: sum(values) / len(values) for name, values in sums.items()}
    share, name = max(((share, name) for name, share in means.items()), default=(0.0, ""))
    return (name, share) if share > MOST else None


def dominance_note(stage: StageContents) -> Content:
    """Return a sentence about the dominant reward of a stage; empty if there is none."""
    found = dominant_reward(stage)
    if found is None:
        return ""
    name, share = found
    return element(
        "p",
        "Reward ",
        element("code", name),
        f" makes up {100 * share:.0f}% of the spread of the weighted sum among a prompt's completions, so the policy "
        "learns from it almost alone. Lower its weight, or standardise the rewards (",
        element("code", "normalise"),
        "), if the others are to count.",
        class_="note",
    )
