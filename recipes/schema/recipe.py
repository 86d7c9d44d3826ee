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
    """Return what stages of a built-in kind put out; "" for an unknown kind."""
    return STAGE_KINDS[kind].produces if kind in STAGE_KINDS else ""


class Recipe(StrictModel):
    """A pipeline: data, rewards, and the stages that use them."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Name of the run and of its folder.")
    description: str = Field("", description="What the recipe is for, for people.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    policy: PolicyConfig = Field(description="The policy that a stage starts from when it names none.")
    data: dict[str, AnyData] = Field(default_factory=dict, description="Named data sources.")
    rewards: dict[str, AnyReward] = Field(default_factory=dict, description="Named rewards.")
    engine: EngineConfig = Field(default_factory=EngineConfig, description="What trains.")
    stages: list[AnyStage] = Field(min_length=1, description="The stages; they run in the order of their `from` edges.")
