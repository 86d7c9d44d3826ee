"""Seeds derived from a stage's seed."""

RUN_STRIDE = 7919
STEP_STRIDE = 1_000_003


def seed_of_run(seed: int, run: int) -> int:
    """Return the seed of one of a stage's runs or members; run 0 has the stage's own."""
    return seed + RUN_STRIDE * run


def seed_of_step(seed: int, step: int) -> int:
    """Return the sampling seed of one training step."""
    return seed * STEP_STRIDE + step
