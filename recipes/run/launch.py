"""`--processes N`: one run in several processes of this machine, started and watched by torch's launcher.

The processes hand their failures to this one, which shows the first: one message, however many of them failed.
"""

import ctypes
import logging
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.recipes.pipeline.pipeline import Pipeline
from gemsmith.recipes.run.failure_handoff import FOLDER_VARIABLE, ProcessFailedError, launched, read_failures
from gemsmith.recipes.run.machine import cores, gpus
from gemsmith.recipes.run.record import forget, locked
from gemsmith.recipes.schema.faults import Faults

USER_FAULT = 2
SHUTDOWN_SECONDS = 30  # that a process has to end by itself


def check_count(processes: int) -> None:
    """Refuse more processes than this machine has places for, and a launcher inside a launcher.

    Raises:
        UserError: in one sentence.
    """
    if "RANK" in os.environ:
        raise UserError("--processes: found a launcher at work (RANK is set), which has its own number; leave it out")
    found = gpus()
    places, name = (len(found), "GPU") if found else (cores(), "core")
    if processes > places:
        raise UserError(
            f"--processes {processes}: found {places} {name}{'s' if places > 1 else ''}, expected at most that"
        )


def check_shares(pipeline: Pipeline, nodes: Sequence[Node], processes: int) -> None:
    """Refuse stages whose batch so many processes cannot share, or whose members are to be trained at once.

    Raises:
        UserError: a line for each.
    """
    faults = Faults()
    shared = pipeline.engine.sequence_parallel
    for node in nodes:
        if processes % shared == 0:
            for field, fault in node.config.process_faults(processes // shared):
                faults.add(("stages", node.id, *filter(None, [field])), fault)
    faults.raise_if_any()


def launch_run(
    pipeline: Pipeline, folder: Path, arguments: Sequence[str], processes: int, only: Sequence[str], *, fresh: bool
) -> None:
    """`gemsmith run ARGUMENTS --out FOLDER` in several processes; see `launch`. `fresh` is done here, by one."""
    if fresh and folder.exists():
        with locked(folder):
            forget(folder, set(only) or {node.id for node in pipeline.nodes})
    launch(["run", *arguments, f"--out={folder}"], processes)


def launch(arguments: Sequence[str], processes: int) -> None:
    """Run `gemsmith ARGUMENTS` in so many processes, and wait for them.

    Raises:
        ProcessFailedError: a process failed, with the message and the exit code that it would have ended with alone.
        RunError: a process was killed.
        KeyboardInterrupt: Ctrl-C, after the processes have ended.
    """
    handoff = Path(tempfile.mkdtemp(prefix="gemsmith-"))
    os.environ[FOLDER_VARIABLE] = str(handoff)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // processes)))
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        _start(arguments, processes, handoff)
    finally:
        os.environ.pop(FOLDER_VARIABLE)
        shutil.rmtree(handoff, ignore_errors=True)


def die_with_launcher() -> None:
    """Let the kernel end this process when the one that launched it is killed; nothing where none did."""
    if launched() and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _start(arguments: Sequence[str], processes: int, handoff: Path) -> None:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        shutdown_timeout=SHUTDOWN_SECONDS,
        logs_specs=DefaultLogsSpecs(
            log_dir=str(handoff / "console"), redirects={i: Std.ALL for i in range(1, processes)}, tee=Std.NONE
        ),
    )
    logging.disable(logging.ERROR)  # the launcher's own account of a failure
    try:
        elastic_launch(config, sys.executable)("-P", "-m", "gemsmith", *arguments)
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt(read_failures(handoff).get(0, {}).get("message", "")) from error
        raise ProcessFailedError(f"ended by {error.sigval.name}", 128 + error.sigval) from error
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        _raise_first_failure(codes, processes, handoff)
    finally:
        logging.disable(logging.NOTSET)


def _raise_first_failure(codes: Mapping[int, int], processes: int, handoff: Path) -> NoReturn:
    """Raise the failure that came first; those of other processes follow from it."""
    for rank, code in codes.items():
        if code < 0 and -code not in (signal.SIGTERM, signal.SIGINT):
            memory = " (is there enough memory?)" if -code == signal.SIGKILL else ""
            raise RunError(
                f"process {rank + 1} of {processes} was killed by {signal.Signals(-code).name}{memory}; "
                "the same command continues where it stopped"
            )
    if failures := read_failures(handoff):
        first = min(failures.values(), key=lambda failure: (failure["code"] != USER_FAULT, failure["time"]))
        raise ProcessFailedError(first["message"], first["code"])
    rank, code = next(iter(codes.items()))
    printed = "".join(path.read_text()[-2000:] for path in handoff.glob(f"console/**/{rank}/stderr.log"))
    raise ProcessFailedError(f"process {rank + 1} of {processes} ended with exit code {code}\n{printed}".strip(), code)
