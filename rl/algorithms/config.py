"""Union of the algorithm configurations that a recipe can name. Imports no torch."""

from typing import Annotated, get_args

from pydantic import Field

from gemsmith.rl.algorithms.bond_config import BondAlgorithm
from gemsmith.rl.algorithms.reinforce_config import ReinforceAlgorithm
from gemsmith.rl.algorithms.rollout_config import RolloutConfig

AnyAlgorithm = Annotated[BondAlgorithm | ReinforceAlgorithm, Field(discriminator="kind")]
ALGORITHMS: tuple[type[RolloutConfig], ...] = get_args(get_args(AnyAlgorithm)[0])
"""Configuration classes in the `AnyAlgorithm` union."""
