"""What a launcher (torchrun, deepspeed, `gemsmith run --processes`) told this process. Imports no torch."""

import os


def rank() -> int:
    """Return which of the launcher's processes this is; 0 where there is no launcher."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """Return how many processes the launcher started; 1 where there is no launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))
