"""The claims, in the order of the report: each line is a module of `benchmarks.fidelity.claims`."""

import importlib
from collections.abc import Iterator, Sequence

from benchmarks.fidelity.claim import Claim
from gemsmith.contracts.errors import UserError

CLAIMS = (
    "bond_beta",
    "bond_iterated",
    "jbond_anchor",
    "jbond_rates",
    "jbond_reinforce",
    "invariance",
    "warm_labels",
    "warm_baklava",
    "warm_lines",
    "warm_features",
    "warm_best_of_n",
    "warm_hacking",
    "warm_hacking_slow",
    "warp_anchor",
    "warp_line",
    "warp_merge",
    "warp_iterated",
    "jbond_reinforce_tiny",
    "jbond_anchor_tiny",
    "jbond_rates_tiny",
    "bond_iterated_tiny",
    "warp_line_tiny",
    "warp_merge_tiny",
    "warp_iterated_tiny",
    "against_trl",
    "quantisation",
    "gkd_students",
    "distil_against_sft",
    "sampled_modes",
    "teacher_size",
)


def claims(only: Sequence[str] | None = None) -> list[Claim]:
    """All claims, or those with the given ids; UserError names an id that is unknown."""
    found = list(_all())
    known = {claim.id for claim in found}
    assert len(known) == len(found), "two claims have one id"
    if unknown := [name for name in only or () if name not in known]:
        raise UserError(f"there is no claim {unknown[0]}: the claims are {', '.join(sorted(known))}.")
    return [claim for claim in found if only is None or claim.id in only]


def _all() -> Iterator[Claim]:
    for name in CLAIMS:
        yield importlib.import_module(f"benchmarks.fidelity.claims.{name}").CLAIM
