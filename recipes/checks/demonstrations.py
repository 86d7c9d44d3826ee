"""Whether the data on which a teacher is asked can have demonstrations, as far as the recipe tells."""

from collections.abc import Mapping, Sequence
from typing import Any

from gemsmith.contracts.stage import StageConfig
from gemsmith.curation.config import DataConfig, Mixture
from gemsmith.recipes.schema.faults import Faults
from gemsmith.rl.stages.distill.config import DistillStage
from gemsmith.rl.stages.qat.config import QatStage
from gemsmith.rl.stages.teacher_cache.config import TeacherCacheStage


def check_demonstrations(stages: Sequence[StageConfig], data: Mapping[str, Any], faults: Faults) -> None:
    """Add a fault for each stage whose teacher is asked on demonstrations, of a section that has and makes none.

    Args:
        stages: as in the file.
        data: sections by name, mixtures with their parts.
        faults: gets what is wrong.
    """
    for index, config in enumerate(stages):
        shown = isinstance(config, TeacherCacheStage | QatStage)
        if not (shown or (isinstance(config, DistillStage) and config.on_policy < 1)):
            continue
        section = str(getattr(config, "data", None))
        if section in data and not can_demonstrate(data[section]):
            faults.add(
                ("stages", index, "data"),
                f'found "{section}", which has no demonstrations, expected a section that maps them with '
                "`demonstration`, or makes them with `synthesise`",
            )


def can_demonstrate(section: Any) -> bool:
    """Whether a section's rows may have demonstrations; of a mixture, whether those of any part may."""
    if isinstance(section, Mixture):
        return any(can_demonstrate(part) for part in section.sections.values())
    if isinstance(section, DataConfig):
        return section.demonstration is not None or section.synthesise is not None
    return True  # a policy's answers are demonstrations
