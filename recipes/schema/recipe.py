"""The recipe: one strict document that describes a whole pipeline. Imports no torch."""

from typing import Annotated, get_args

from pydantic import Field

from gemsmith.contracts.stage import StageConfig
from gemsmith.contracts.strict import StrictModel
from gemsmith.curation.config import AnyData
from gemsmith.evals.config import EvaluateStage
from gemsmith.export.config import ExportStage
from gemsmith.policy.config import EngineConfig, PolicyConfig
from gemsmith.reward_models.config import WarmStage
from gemsmith.rl.rewards.config import AnyReward
from gemsmith.rl.stages.distill.config import DistillStage
from gemsmith.rl.stages.generate.config import GenerateStage
from gemsmith.rl.stages.qat.config import QatStage
from gemsmith.rl.stages.reinforcement.config import BondStage, ReinforceStage
from gemsmith.rl.stages.sft.config import SftStage
from gemsmith.rl.stages.teacher_cache.config import TeacherCacheStage
from gemsmith.rl.stages.warp.config import WarpStage

AnyStage = Annotated[
    SftStage
    | TeacherCacheStage
    | DistillStage
    | GenerateStage
    | QatStage
    | WarmStage
    | BondStage
    | ReinforceStage
    | WarpStage
    | EvaluateStage
    | ExportStage,
    Field(discriminator="kind"),
]
STAGE_KINDS: dict[str, type[StageConfig]] = {
    get_args(stage.model_fields["kind"].annotation)[0]: stage for stage in get_args(get_args(AnyStage)[0])
}
"""The configurations in `AnyStage` by their kind."""


def produced_by(kind: str) -> str:
    """Return the kind of output of a built-in stage kind, or "" if the kind is unknown."""
    return STAGE_KINDS[kind].produces if kind in STAGE_KINDS else ""


class Recipe(StrictModel):
    """A whole pipeline: data, rewards, and the stages that use them."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100, description="Name of the run and of its folder."
    )
    description: str = Field("", description="Purpose of the recipe, shown in the report.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of all random choices.")
    policy: PolicyConfig = Field(description="Policy that a stage starts from if it does not name one.")
    data: dict[str, AnyData] = Field(default_factory=dict, description="Data sections by name.")
    rewards: dict[str, AnyReward] = Field(default_factory=dict, description="Rewards by name.")
    engine: EngineConfig = Field(
        default_factory=EngineConfig, description="Training engine: DeepSpeed and sequence parallelism."
    )
    stages: list[AnyStage] = Field(min_length=1, description="Stages; a stage runs after the stages that it refers to.")
