"""K, the entries of a token that are learnt, held against the vocabulary, as far as that is known without weights."""

from collections.abc import Sequence
from pathlib import Path

from gemsmith.contracts.stage import StageConfig
from gemsmith.curation.teacher_store.manifest import MOST
from gemsmith.policy.sizes import shape_of
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.recipes.pipeline.origins import origin_of
from gemsmith.recipes.schema.faults import Faults
from gemsmith.rl.stages.teacher_cache.config import TeacherCacheStage
from gemsmith.rl.teachers.config import SampledConfig

GEMMA = 262_144  # rows of the released text models' embedding; those with a vision tower have 64 more


def check_entries(stages: Sequence[StageConfig], nodes: Sequence[Node], root: Path, faults: Faults) -> None:
    """No more entries a token than the vocabulary of the stage's policy has, or than a store has room for.

    Args:
        stages: as in the file.
        nodes: the same with the recipe's policy filled in.
        root: the recipe's folder.
        faults: gets what is wrong.
    """
    configs = {node.id: node.config for node in nodes}
    for index, config in enumerate(stages):
        asked = config.sampled_logits if isinstance(config, SampledConfig) else None
        if asked is None:
            continue
        keys, origin = ("stages", index, "sampled_logits"), origin_of(configs[config.id], configs)
        shape = shape_of(origin, root) if origin is not None else None
        entries = shape.vocabulary if shape is not None else GEMMA
        if asked > entries:
            whose = origin.name if origin is not None and shape is not None else "Gemma 3"
            faults.add(
                keys, f"found {asked}, expected at most the {entries} entries that the vocabulary of {whose} has"
            )
        elif isinstance(config, TeacherCacheStage) and asked > MOST:
            faults.add(keys, f"found {asked}, expected at most {MOST}, as a store has no room for more")
