"""`--processes N`: one run in several processes of this machine, started and watched by torch's launcher.

The processes leave their last words in a folder, and this one says them: one message, whoever fell first.
"""

import ctypes
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.recipes.pipeline.pipeline import Pipeline
from gemsmith.recipes.run.failure_handoff import WORDS, Failed
from gemsmith.recipes.run.machine import cores, gpus
from gemsmith.recipes.run.record import forget, locked
from gemsmith.recipes.schema.faults import Faults

USER_FAULT = 2
PATIENCE = 30  # seconds that a process has to end by itself


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
        Failed: a process failed, with the message and the exit code that it would have ended with alone.
        RunError: a process was killed.
        KeyboardInterrupt: Ctrl-C, after the processes have ended.
    """
    words = Path(tempfile.mkdtemp(prefix="gemsmith-"))
    os.environ[WORDS] = str(words)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // processes)))
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        _start(arguments, processes, words)
    finally:
        os.environ.pop(WORDS)
        shutil.rmtree(words, ignore_errors=True)


def die_with_launcher() -> None:
    """Let the kernel end this process when the one that launched it is killed; nothing where none did."""
    if WORDS in os.environ and "RANK" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _start(arguments: Sequence[str], processes: int, words: Path) -> None:
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
        shutdown_timeout=PATIENCE,
        logs_specs=DefaultLogsSpecs(
            log_dir=str(words / "console"), redirects={i: Std.ALL for i in range(1, processes)}, tee=Std.NONE
        ),
    )
    logging.disable(logging.ERROR)  # the launcher's own account of a failure
    try:
        elastic_launch(config, sys.executable)("-P", "-m", "gemsmith", *arguments)
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt(_words(words).get(0, {}).get("message", "")) from error
        raise Failed(f"ended by {error.sigval.name}", 128 + error.sigval) from error
    except ChildFailedError as error:
        _fail({place: failure.exitcode for place, failure in error.failures.items()}, _words(words), processes, words)
    finally:
        logging.disable(logging.NOTSET)


def _words(folder: Path) -> dict[int, dict[str, Any]]:
    return {int(path.stem): json.loads(path.read_text()) for path in folder.glob("*.json")}


def _fail(codes: Mapping[int, int], words: Mapping[int, Mapping[str, Any]], processes: int, folder: Path) -> NoReturn:
    """Raise what fell first; what the others say then is but its echo."""
    for place, code in codes.items():
        if code < 0 and -code not in (signal.SIGTERM, signal.SIGINT):
            memory = " (is there enough memory?)" if -code == signal.SIGKILL else ""
            raise RunError(
                f"process {place + 1} of {processes} was killed by {signal.Signals(-code).name}{memory}; "
                "the same command continues where it stopped"
            )
    if words:
        first = min(words, key=lambda place: (words[place]["code"] != USER_FAULT, words[place]["time"]))
        raise Failed(words[first]["message"], words[first]["code"])
    place, code = next(iter(codes.items()))
    printed = "".join(path.read_text()[-2000:] for path in folder.glob(f"console/**/{place}/stderr.log"))
    raise Failed(f"process {place + 1} of {processes} ended with exit code {code}\n{printed}".strip(), code)
