"""Training of one WARP run from its iteration's start, in this process or in a worker process."""

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
    """Settings and folders of one run.

    Attributes:
        policy: settings for loading the policy; the weights come from `beginning`.
        inner: algorithm and training settings.
        beginning: folder of the iteration's initial policy.
        folder: the run's folder, for its checkpoints and its trained policy.
        iteration: index of the iteration, from 0.
        run: index of the run within the iteration, from 0.
        part: (i, n) for the i-th of the stage's n runs, from 0.
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
    """Train a run, resuming from its last checkpoint if there is one.

    Args:
        run: the run to train.
        stage: the stage, for messages, progress and metrics.
        rewards: the run's rewards, open; if None, this function opens and closes them.
        together: True if other processes train other runs at the same time.
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
    """Train runs of one iteration, `parallel` at a time, each in a worker process.

    Args:
        runs: the unfinished runs.
        stage: the stage, for messages, progress and metrics.
        parallel: number of runs to train at the same time.
        before: steps of the stage's finished runs, for the progress.
        steps: steps of all runs of the stage.

    Raises:
        UserError, RunError: see `gemsmith.policy.training.parallel_workers.train_together`.
    """
    for run in runs:  # before the workers start, because they append to metrics.jsonl
        forget_what_runs_again(stage, run.checkpoints, {"iteration": run.iteration, "run": run.run})
    silent = replace(stage, sink=Silence())
    orders = [Order(run.run, f"run {run.run + 1}", silent, run.folder, what=(run,)) for run in runs]

    def progress(done: int, shown: Mapping[str, float]) -> None:
        stage.progress(before + done, steps, "step", **shown)

    train_together(PROGRAM, orders, parallel, stage, progress)
