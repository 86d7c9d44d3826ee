"""Verification of a completion against instructions."""

import time
from collections.abc import Sequence

from gemsmith.sandboxes.instructions.registry import Instruction
from gemsmith.sandboxes.verdict import Status, Verdict


def verify(completion: str, instructions: Sequence[Instruction], strict: bool = True) -> Verdict:
    """Return right if each instruction is followed; the reason names those that are not.

    Raises:
        ValueError: there is no instruction to verify.
    """
    if not instructions:
        raise ValueError("a completion is verified against at least one instruction")
    start = time.perf_counter()
    broken = [one.kind.id for one in instructions if not one.followed(completion, strict)]
    seconds = time.perf_counter() - start
    if broken:
        reason = f"{len(broken)} of {len(instructions)} instructions not followed: {', '.join(broken)}"
        return Verdict(0.0, Status.WRONG, None, reason, seconds)
    return Verdict(1.0, Status.RIGHT, None, f"all of {len(instructions)} instructions followed", seconds)
