"""Baklava: WARM's members from successive checkpoints of one SFT training, where a quarter of the labels are wrong."""

from benchmarks.fidelity.claim import Claim, Measured, Setting
from benchmarks.fidelity.claims.warm_labels import compared, draw, judge
from benchmarks.fidelity.toys.corrupted import QUICK, SETTING, baklava


def run(setting: Setting, seed: int) -> Measured:
    """Accuracies on each subset."""
    return Measured(compared(baklava(setting, seed), "baklava ", setting, seed))


CLAIM = Claim(
    id="W1b",
    sentence="The same holds of Baklava, whose members start from successive checkpoints of one SFT training.",
    source="WARM (arXiv 2401.12187), section 3 and figure 4",
    setting=SETTING,
    quick=QUICK,
    run=run,
    judge=judge,
    draw=draw,
)
