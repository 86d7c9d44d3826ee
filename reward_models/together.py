"""Members of WARM trained at once, each in a process of its own: a fresh program, which goes when this one goes."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from contracts.errors import RunError, UserError
from contracts.stage import Silence, Stage
from policy.engine import forget_what_runs_again
from reward_models.config import WarmStage
from reward_models.member import MemberPlan, checkpoints_of
from reward_models.pairs import Pair

ROOT = Path(__file__).parents[1]
PROGRAM = "reward_models.member_process"
LAST_LINES = 8
LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Order:
    """What a member's process is told to train."""

    config: WarmStage
    plan: MemberPlan
    stage: Stage
    probed: Path
    pairs: Sequence[Pair]
    folder: Path


@dataclass
class _Member:
    """A member at work: its process, what it says, and where what it prints goes."""

    number: int
    process: subprocess.Popen[bytes]
    messages: Connection
    log: Path
    failure: tuple[bool, str] | None = field(default=None)  # whether it is the user's, and what it is

    def end(self) -> None:
        """Kill it and what it started, and wait for that; nothing where it has ended."""
        with suppress(ProcessLookupError, PermissionError):
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.messages.close()


def train_together(
    config: WarmStage,
    plans: Sequence[MemberPlan],
    stage: Stage,
    probed: Path,
    pairs: Sequence[Pair],
    folder_of: Callable[[MemberPlan], Path],
) -> None:
    """Train members, `config.parallel` at a time; each continues where a killed run stopped.

    Rows of metrics.jsonl are written by the members' own processes, progress is the sum of theirs.

    Args:
        config: of the stage.
        plans: of the members that are not finished.
        stage: whom to tell.
        probed: folder of the model with the shared head.
        pairs: what to train on.
        folder_of: where a finished member goes.

    Raises:
        UserError: a member raised one; the others are stopped.
        RunError: a member failed otherwise, or was killed; the others are stopped.
    """
    for plan in plans:  # now, as nobody writes to metrics.jsonl yet
        forget_what_runs_again(stage, checkpoints_of(folder_of(plan)), {"member": plan.member})
    if not plans:
        return
    threads = thread_share(torch.get_num_threads(), config.parallel)
    each = "one thread" if threads == 1 else f"{threads} threads"
    stage.say(f"training {min(config.parallel, len(plans))} members at once, with {each} each")
    told = replace(stage, data={}, rewards={}, sink=Silence())
    waiting = list(plans)
    steps: dict[int, int] = {}
    running: dict[Connection, _Member] = {}
    try:
        while waiting or running:
            while waiting and len(running) < config.parallel:
                plan = waiting.pop(0)
                order = Order(config, plan, told, probed, pairs, folder_of(plan))
                member = _start(order, _environment(os.environ, threads))
                running[member.messages] = member
            for messages in wait(list(running)):
                member = running[messages]  # type: ignore[index]
                try:
                    what, *values = member.messages.recv()
                except (EOFError, OSError):
                    del running[member.messages]
                    _check(member)
                    continue
                if what == "progress":
                    steps[member.number], shown = values
                    stage.progress(sum(steps.values()), len(plans) * config.steps, "step", **shown)
                elif what == "say":
                    stage.say(f"member {member.number}: {values[0]}")
                else:
                    member.failure = (values[0], values[1])
    finally:
        for member in running.values():
            member.end()


def thread_share(threads: int, parallel: int) -> int:
    """Threads of each of so many processes, where one could have `threads`."""
    return max(1, threads // parallel)


def _environment(known: Mapping[str, str], threads: int) -> dict[str, str]:
    """Variables of a member's process: its threads, told before torch is loaded, and no launcher."""
    path = os.pathsep.join(filter(None, [str(ROOT), known.get("PYTHONPATH")]))
    own = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    return {**{name: value for name, value in known.items() if name not in LAUNCHERS}, **own}


def _start(order: Order, environment: Mapping[str, str]) -> _Member:
    """Start the process of a member: its order is its input, what it prints goes to a file beside its folder."""
    log = order.folder.with_name(f"{order.folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    ours, its = Pipe(duplex=False)
    with its, tempfile.TemporaryFile() as told, log.open("ab") as printed:
        pickle.dump(order, told)
        told.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", PROGRAM, str(its.fileno()), str(os.getpid())],
            stdin=told,
            stdout=printed,
            stderr=printed,
            env=dict(environment),
            pass_fds=[its.fileno()],
            start_new_session=True,
        )
    return _Member(order.plan.member, process, ours, log)


def _check(member: _Member) -> None:
    """How a member's process ended.

    Raises:
        UserError: by a fault of the user.
        RunError: otherwise, if badly.
    """
    code = member.process.wait()
    member.messages.close()
    if member.failure is not None:
        users, text = member.failure
        if users:
            raise UserError(f"member {member.number}: {text}")
        raise RunError(f"member {member.number} failed: {text}\nThe end of {member.log}:\n{_tail(member.log)}")
    if code:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        memory = " (is there enough memory? lower `parallel`)" if -code == signal.SIGKILL else ""
        raise RunError(f"member {member.number} {how}{memory}. The end of {member.log}:\n{_tail(member.log)}")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-LAST_LINES:]) or "  (nothing)"
