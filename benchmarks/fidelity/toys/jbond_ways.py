"""Trainings of tiny Gemma 3 policies by J-BOND, in the setting that several claims share."""

from typing import Any

from benchmarks.fidelity.claim import Curve, Setting
from benchmarks.fidelity.toys import trajectory
from benchmarks.fidelity.toys.trajectory import Way, way_of

# Rates and steps were chosen by a pilot on seed 99. An anchor rate of 0.05 is in the paper's range for 2B.
SETTING: Setting = {
    **trajectory.SETTING, "learning_rate": 3e-4, "steps": 100, "points": 8, "asked": 160, "anchor_rate": 0.05,
}  # fmt: skip
QUICK: Setting = trajectory.QUICK


def jbond_way(setting: Setting, seed: int, **changes: Any) -> Way:
    """J-BOND with the setting's anchor rate and gamma 0, or with `changes` to the stage's fields."""
    base = {} if changes.get("anchor") == "periodic" else {"anchor_rate": setting["anchor_rate"]}
    return way_of("bond", base | changes, setting, seed)


def curves_of(name: str, way: Way) -> dict[str, Curve]:
    """Its front under its name, and KL and reward over steps."""
    return {
        name: _short(way.front),
        f"{name} KL": _short([(point.step, point.kl) for point in way.points]),
        f"{name} reward": _short([(point.step, point.reward) for point in way.points]),
    }


def numbers_of(name: str, way: Way) -> dict[str, float]:
    """Reward and KL of its last point."""
    return {f"{name} reward": round(way.points[-1].reward, 4), f"{name} KL": round(way.points[-1].kl, 4)}


def _short(curve: Curve) -> Curve:
    return [(round(x, 4), round(y, 4)) for x, y in curve]
