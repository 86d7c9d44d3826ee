"""Check every training of a recipe against the context of its policy and against the engine."""

from collections.abc import Mapping
from pathlib import Path

from gemsmith.contracts.planning import Keys
from gemsmith.contracts.stage import StageConfig
from gemsmith.contracts.suggestions import listed
from gemsmith.policy.config import EngineConfig
from gemsmith.policy.origins import inherited_context
from gemsmith.recipes.schema.faults import Faults
from gemsmith.recipes.schema.recipe import STAGE_KINDS


def check_trainings(
    config: StageConfig,
    index: int,
    stages: Mapping[str, StageConfig],
    engine: EngineConfig,
    root: Path,
    faults: Faults,
) -> None:
    """Add a fault for sequences longer than the policy's context, and for stages without sequence parallelism.

    Args:
        config: the stage, with the recipe's policy filled in.
        index: the stage's position in the recipe.
        stages: all stages by id, with the recipe's policy filled in.
        engine: the recipe's engine.
        root: the recipe's folder.
        faults: collects the faults.
    """
    trainings = config.trainings()
    context = inherited_context(config, stages, root) if trainings else None
    for training in trainings:
        stated = training.config.stated_length
        if context is not None and stated is not None and stated > context:
            keys: Keys = ("stages", index, *filter(None, [training.field]), "max_length")
            longer = "or lengthen it with `policy: {rope: {factor: ...}}`"
            faults.add(keys, f"found {stated}, expected at most the policy's context of {context} tokens, {longer}")
    if engine.sequence_parallel > 1 and trainings and not config.shares_sequences:
        sharing = listed(kind for kind, stage in STAGE_KINDS.items() if stage.shares_sequences)
        because = f'because stage "{config.id}" does not support sequence parallelism; only kind {sharing} does'
        faults.add(("engine", "sequence_parallel"), f"found {engine.sequence_parallel}, expected 1, {because}")
