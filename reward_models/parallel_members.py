"""Training of several members of WARM at once, each in its own process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gemsmith.contracts.stage import Silence, Stage
from gemsmith.policy.training.engine import forget_what_runs_again
from gemsmith.policy.training.parallel_workers import Order, train_together
from gemsmith.reward_models.config import WarmStage
from gemsmith.reward_models.member import MemberPlan, checkpoints_of
from gemsmith.reward_models.pairs import Pair

PROGRAM = "gemsmith.reward_models.member_process"


def train_members(
    config: WarmStage,
    plans: Sequence[MemberPlan],
    stage: Stage,
    probed: Path,
    pairs: Sequence[Pair],
    folder_of: Callable[[MemberPlan], Path],
) -> None:
    """Train members, `config.parallel` at a time; each resumes from its checkpoint if there is one.

    Args:
        config: configuration of the stage.
        plans: plans of the members that are not finished.
        stage: the running stage, which reports progress.
        probed: folder of the model with the shared head.
        pairs: training pairs.
        folder_of: returns the folder of a finished member.

    Raises:
        UserError, RunError: see `gemsmith.policy.training.parallel_workers.train_together`.
    """
    for plan in plans:  # before the workers start, because they write to metrics.jsonl
        forget_what_runs_again(stage, checkpoints_of(folder_of(plan)), {"member": plan.member})
    silent = replace(stage, data={}, rewards={}, sink=Silence())
    orders = [
        Order(plan.member, f"member {plan.member}", silent, folder_of(plan), (config, plan, probed, pairs))
        for plan in plans
    ]

    def progress(done: int, shown: Mapping[str, float]) -> None:
        stage.progress(done, len(plans) * config.steps, "step", **shown)

    train_together(PROGRAM, orders, config.parallel, stage, progress)
