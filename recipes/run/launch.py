"""`--processes N`: one run in several processes of this machine, started and watched by torch's launcher.

The worker processes hand their failures to this process, which reports only the first one.
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
from gemsmith.contracts.stopping import GRACE
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.recipes.pipeline.pipeline import Pipeline
from gemsmith.recipes.run.failure_handoff import FOLDER_VARIABLE, ProcessFailedError, launched, read_failures
from gemsmith.recipes.run.machine import cores, gpus
from gemsmith.recipes.run.ownership import claim
from gemsmith.recipes.run.record import forget, locked
from gemsmith.recipes.schema.faults import Faults

USER_FAULT = 2
SHUTDOWN_SECONDS = int(GRACE) + 15  # time for a process to save and end by itself before it is killed


def check_count(processes: int) -> None:
    """Reject more processes than GPUs (or cores, without a GPU), and a launcher inside a launcher.

    Raises:
        UserError: `processes` is too large, or another launcher started this process.
    """
    if "RANK" in os.environ:
        raise UserError(
            "--processes: another launcher has started this process (RANK is set) and sets the number of processes; "
            "leave --processes out"
        )
    found = gpus()
    places, name = (len(found), "GPU") if found else (cores(), "core")
    if processes > places:
        raise UserError(
            f"--processes {processes}: found {places} {name}{'s' if places > 1 else ''}, expected at most that"
        )


def check_shares(pipeline: Pipeline, nodes: Sequence[Node], processes: int) -> None:
    """Reject stages whose batch cannot be divided among the processes, or whose members are trained in parallel.

    Raises:
        UserError: one line for each such stage.
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
    """Run `gemsmith run ARGUMENTS --out FOLDER` in several processes.

    Args:
        pipeline: the checked recipe.
        folder: the run's folder.
        arguments: the recipe and its options, as on the command line.
        processes: number of processes.
        only: ids of the stages to run; empty means all.
        fresh: delete earlier results of these stages. This process does it, before the others start.

    Raises:
        ProcessFailedError: a process failed; see `launch` for this and other errors.
    """
    if fresh and folder.exists():
        with locked(folder):
            claim(folder, pipeline.for_run(folder), fresh=True)
            forget(folder, set(only) or {node.id for node in pipeline.nodes})
    launch(["run", *arguments, f"--out={folder}"], processes)


def launch(arguments: Sequence[str], processes: int) -> None:
    """Run `gemsmith ARGUMENTS` in `processes` processes, and wait until all have ended.

    Raises:
        ProcessFailedError: a process failed; it carries the message and the exit code of that process.
        RunError: a process was killed.
        KeyboardInterrupt: the user pressed Ctrl-C; raised after all processes have ended.
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
    """Ask the kernel to end this process if its launcher is killed; does nothing without a launcher."""
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
    logging.disable(logging.ERROR)  # hides the launcher's own report of a failure
    try:
        elastic_launch(config, sys.executable)("-P", "-m", "gemsmith", *arguments)
    except SignalException as error:
        message = read_failures(handoff).get(0, {}).get("message", "")
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt(message) from error
        raise ProcessFailedError(message or f"ended by {error.sigval.name}", 128 + error.sigval) from error
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        _raise_first_failure(codes, processes, handoff)
    finally:
        logging.disable(logging.NOTSET)


def _raise_first_failure(codes: Mapping[int, int], processes: int, handoff: Path) -> NoReturn:
    """Raise the first failure; the failures of the other processes follow from it."""
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
