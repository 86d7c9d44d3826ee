"""One run of an iteration of WARP: a training from the iteration's start, here or in a process of its own."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from gemsmith.contracts.stage import Silence, Stage
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.training.engine import forget_what_runs_again
from gemsmith.policy.training.parallel_workers import Order, train_together
from gemsmith.rl.algorithms.rollout_config import RolloutConfig
from gemsmith.rl.rewards.compose import Rewards, open_rewards
from gemsmith.rl.stages.reinforcement.stage import train_policy, training_prompts

PROGRAM = "gemsmith.rl.stages.warp.run_process"


@dataclass(frozen=True)
class WarpRun:
    """What one run is.

    Attributes:
        policy: how its policy is loaded; where from is `beginning`.
        inner: its algorithm and settings.
        beginning: folder of the iteration's start.
        folder: the run's own; its checkpoints are there, and its policy at the end.
        iteration: counted from 0.
        run: counted from 0 in its iteration.
        part: (i, n) when it is the i-th of the stage's n trainings.
    """

    policy: PolicyConfig
    inner: RolloutConfig
    beginning: Path
    folder: Path
    iteration: int
    run: int
    part: tuple[int, int]

    @property
    def final(self) -> Path:
        """Folder of the trained policy."""
        return self.folder / "final"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.folder / "checkpoints"


def train_run(run: WarpRun, stage: Stage, rewards: Rewards | None = None, together: bool = False) -> None:
    """Train a run; it continues where a killed one stopped.

    Args:
        run: which.
        stage: whom to tell.
        rewards: those of the run, open; none: they are opened here.
        together: whether other runs are trained in other processes meanwhile.
    """
    source = run.policy.model_copy(update={"model": None, "from_": "start", "liti": None})
    policy = load_policy(source, {"start": run.beginning}, stage.root, tokens=run.inner.stated_length)
    examples = training_prompts(run.inner, policy, stage)
    with nullcontext(rewards) if rewards is not None else open_rewards(run.inner.rewards, stage) as opened:
        train_policy(
            policy,
            run.inner,
            stage,
            opened,
            examples,
            run.checkpoints,
            run.final,
            run_seed=1 + run.part[0],
            part=(0, 1) if together else run.part,
            together=together,
            iteration=run.iteration,
            run=run.run,
        )


def train_runs(runs: Sequence[WarpRun], stage: Stage, parallel: int, before: int, steps: int) -> None:
    """Train runs of one iteration, `parallel` at a time, each in a process of its own.

    Args:
        runs: those that are not finished.
        stage: whom to tell.
        parallel: how many at once.
        before: steps of the stage's trainings that are finished.
        steps: of all of them.

    Raises:
        UserError, RunError: as `gemsmith.policy.training.parallel_workers.train_together`.
    """
    for run in runs:  # now, as nobody writes to metrics.jsonl yet
        forget_what_runs_again(stage, run.checkpoints, {"iteration": run.iteration, "run": run.run})
    told = replace(stage, sink=Silence())
    orders = [Order(run.run, f"run {run.run + 1}", told, run.folder, what=(run,)) for run in runs]

    def progress(done: int, shown: Mapping[str, float]) -> None:
        stage.progress(before + done, steps, "step", **shown)

    train_together(PROGRAM, orders, parallel, stage, progress)
