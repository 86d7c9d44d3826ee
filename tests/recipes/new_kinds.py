"""A stage kind and an algorithm that the project does not have, written as CONTRIBUTING.md says.

`jitter` shakes the weights of a policy; `expert` learns from the best of several completions (expert iteration).
"""

from typing import Annotated, ClassVar, Literal, Union

import torch
from pydantic import Field

from gemsmith.contracts.planning import CheckContext, ForecastContext, StageForecast
from gemsmith.contracts.stage import OutputKind, Stage, StageConfig
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.recipes.schema.recipe import STAGE_KINDS, Recipe
from gemsmith.rl.algorithms.algorithm import Rollouts, Weighted, tie_rate, weighted
from gemsmith.rl.algorithms.rollout_config import RolloutConfig
from gemsmith.rl.stages.reinforcement.config import AlgorithmStage


class JitterStage(StageConfig):
    """A policy with seeded noise on its weights."""

    entry: ClassVar[str] = "tests.recipes.new_kinds:run"
    produces: ClassVar[OutputKind] = "policy"

    kind: Literal["jitter"]
    policy: PolicyConfig | None = Field(None, description="What to shake; none: the recipe's policy.")
    scale: float = Field(0.01, ge=0, description="Standard deviation of the noise.")

    def check(self, context: CheckContext) -> None:
        """Report noise on a policy that nothing trained."""
        if self.policy is None or self.policy.from_ is None:
            context.add(("policy",), "found an untrained policy, expected the `from` of a stage")

    def forecast(self, context: ForecastContext) -> StageForecast:
        """Return the forecast of holding one policy for a second."""
        size = context.size_of(self.policy)
        return StageForecast(size, None, None if size is None else 4.0 * size.parameters, 1.0)


def run(config: JitterStage, stage: Stage) -> None:
    """Load the policy, add the noise, and save it."""
    assert config.policy is not None
    if stage.output.exists():  # saved whole just before a kill
        return
    policy = load_policy(config.policy, stage.inputs, stage.root, seed=stage.seed)
    torch.manual_seed(stage.seed)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight += config.scale * torch.randn_like(weight)
    stage.log({"scale": config.scale}, step=1)
    save_policy(policy, stage.output)


class ExpertAlgorithm(RolloutConfig):
    """Expert iteration: raise the log-probability of the best of `samples` completions of a prompt."""

    algorithm: ClassVar[str] = "tests.recipes.new_kinds:Expert"

    kind: Literal["expert"]
    samples: int = Field(4, ge=2, description="Completions for each prompt.")

    @property
    def own_completions(self) -> int:
        """All completions are the policy's own."""
        return self.samples

    @property
    def completions_per_prompt(self) -> int:
        """`samples`."""
        return self.samples

    @property
    def passes_per_prompt(self) -> float:
        """The best completion alone is learnt from."""
        return 1.0


class ExpertStage(ExpertAlgorithm, AlgorithmStage):
    """Expert iteration as a stage."""


class Expert:
    """Learns from the best completion of each prompt."""

    anchor_rate, anchor_every, auxiliary_learner, needs_anchor_logprob = 0.0, 1, None, False

    def __init__(self, config: ExpertAlgorithm) -> None:
        self.draws = {"policy": config.samples}

    def weigh(self, rollouts: Rollouts) -> tuple[list[Weighted], dict[str, float]]:
        """Give the best completion of each prompt the weight 1, and the others 0."""
        reward_PN = rollouts.policy.learnt_reward_PN
        best_PN = torch.nn.functional.one_hot(reward_PN.argmax(dim=1), reward_PN.shape[1]).float()
        best = reward_PN.amax(dim=1).mean().item()
        return weighted(rollouts.prompts, rollouts.policy.ids, best_PN), {"best": best, "tie_rate": tie_rate(reward_PN)}


class LargerRecipe(Recipe):
    """A recipe that knows both kinds."""

    stages: list[  # type: ignore[assignment]
        Annotated[Union[*STAGE_KINDS.values(), JitterStage, ExpertStage], Field(discriminator="kind")]
    ] = Field(min_length=1)
