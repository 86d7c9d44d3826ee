"""A small real stage for the runner's tests: it counts, keeps a checkpoint, and can end in every way a stage can end.

As a script it is a command: `counting_stage.py RUN {"a": {...}, "b": {...}}`, ended as `gemsmith` ends its commands.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal

import typer

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import OutputKind, Stage, StageConfig, write_atomically
from gemsmith.policy.config import PolicyConfig
from gemsmith.recipes.commands.cli import ends_with_one_message
from gemsmith.recipes.pipeline.pipeline import Pipeline, build_pipeline
from gemsmith.recipes.run.runner import run_pipeline

Fault = Literal[
    "none",
    "user",
    "user_named",
    "run",
    "bug",
    "full",
    "wrapped_full",
    "wait",
    "wait_swallow",
    "kill",
    "exit",
    "no_output",
    "meet",
]


class CountStage(StageConfig):
    """Counts to `steps` on top of the stage before it; at step `at` comes the `fault`, unless `cured` is there."""

    entry: ClassVar[str] = "counting_stage:count"
    produces: ClassVar[OutputKind] = "policy"

    kind: Literal["count"] = "count"
    policy: PolicyConfig | None = None
    steps: int = 3
    fault: Fault = "none"
    at: int = 2
    cured: str = ""
    save_every: int = 1
    noise: str = ""

    @property
    def runs_in_every_process(self) -> bool:
        """True: `meet` waits for the other process."""
        return True


def count(config: CountStage, stage: Stage) -> None:
    """Count; each step is written down at once in `trace` and `checkpoint`."""
    if config.fault == "meet" and not meet():
        return
    base = 0
    for folder in stage.inputs.values():
        base += int((folder / "count").read_text())
    checkpoint = stage.folder / "checkpoint"
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for step in range(done + 1, config.steps + 1):
        if step == config.at and not Path(config.cured or "/nonexistent").exists():
            fail(config.fault, stage)
        with (stage.folder / "trace").open("a") as file:
            file.write(f"{step}\n")
        if config.noise:
            print(config.noise)
            os.system(f"echo {config.noise} from a child >&2")
        stage.log({"count": step}, step=step)
        stage.progress(step, config.steps, count=step)
        write_atomically(checkpoint, str(step))
    if config.fault != "no_output":
        write_atomically(stage.output / "count", str(base + config.steps))


def meet() -> bool:
    """Wait for the other process, as a collective operation does; True in the first process."""
    first = os.environ["RANK"] == "0"
    fifo = Path(os.environ["READY"])
    fifo.read_text() if first else fifo.write_text("here")
    return first


def fail(fault: Fault, stage: Stage) -> None:
    """End the way that `fault` names; `wait` tells through the fifo `READY` that it has come so far, and stays."""
    if fault == "user":
        raise UserError("found a prompt that is too long")
    if fault == "user_named":
        raise UserError(f"stage {stage.id}: found a prompt that is too long")
    if fault == "run":
        raise RunError("the reward brief never came back")
    if fault == "bug":
        raise ZeroDivisionError("inside the trainer")
    if fault == "full":
        with Path("/dev/full").open("w") as file:
            file.write("x")
    if fault == "wrapped_full":
        try:
            with Path("/dev/full").open("w") as file:
                file.write("x")
        except OSError:
            raise RuntimeError("the checkpoint could not be saved") from None
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "exit":
        sys.exit(3)
    if fault in ("wait", "wait_swallow"):
        Path(os.environ["READY"]).write_text("here")
        try:
            signal.pause()
        except KeyboardInterrupt:
            if fault == "wait":
                raise
            raise ValueError("a library that makes another error of Ctrl-C") from None


def pipeline_of(stages: dict[str, dict[str, Any]], root: Path, **settings: Any) -> Pipeline:
    """A pipeline of counting stages; `from` names the stage before."""
    configs = []
    for name, fields in stages.items():
        origin = fields.get("from")
        policy = PolicyConfig.model_validate({"from": origin}) if origin else None
        rest = {key: value for key, value in fields.items() if key != "from"}
        configs.append(CountStage(id=name, policy=policy, **rest))
    return build_pipeline(configs, name="counting", root=root, **settings)


def main(run: Path, stages: str, only: str = "", fresh: bool = False) -> None:
    """Run counting stages as a command."""
    names = [name for name in only.split(",") if name]
    run_pipeline(pipeline_of(json.loads(stages), run.parent), run, only=names, fresh=fresh)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(ends_with_one_message(main))
    app()
