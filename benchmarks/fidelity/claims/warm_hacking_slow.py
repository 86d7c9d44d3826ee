"""The policies of `warm_hacking` at a third of the learning rate, with one member of each learning rate as singles."""

from dataclasses import replace

from benchmarks.fidelity.claims import warm_hacking

CLAIM = replace(
    warm_hacking.CLAIM,
    id="W5b",
    sentence="The same, where single steps move the policy less: a third of the learning rate, and one member of each "
    "learning rate in place of one alone.",
    setting={**warm_hacking.CLAIM.setting, "rate": 1e-4, "steps": 80, "singles": [0, 1, 2]},
    quick={**warm_hacking.CLAIM.quick, "singles": [0, 1]},
)
