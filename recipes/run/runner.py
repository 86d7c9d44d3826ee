"""Run a pipeline's stages one after the other; skip finished ones, and continue interrupted ones."""

import gc
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.processes import rank
from gemsmith.contracts.stage import write_atomically
from gemsmith.contracts.stopping import Stopped, StopRequest, stop_request
from gemsmith.contracts.suggestions import did_you_mean, listed
from gemsmith.recipes.checks.disjoint import check_data
from gemsmith.recipes.checks.plugins import check_importable
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.recipes.pipeline.pipeline import Pipeline
from gemsmith.recipes.run.checksums import changed_files, raise_if_changed, record_files
from gemsmith.recipes.run.console import captured, own_output, quieten, sole_run
from gemsmith.recipes.run.failure import as_run_error, is_disk_full
from gemsmith.recipes.run.machine import environment
from gemsmith.recipes.run.ownership import claim
from gemsmith.recipes.run.record import StageRecord, forget, locked, now, read_stage, write_run, write_stage
from gemsmith.recipes.run.stages import make_stage, run_stage
from gemsmith.recipes.run.view import LineView, View, view_for
from gemsmith.recipes.run.worker import run_as_worker

RECORD_SECONDS = 5.0  # interval of writing a stage's duration: a kill loses at most this much of it


def run_pipeline(
    pipeline: Pipeline, run: Path, *, only: Sequence[str] = (), fresh: bool = False, verbose: bool = False
) -> Path | None:
    """Run the unfinished stages of a pipeline in the folder `run`.

    Args:
        pipeline: the checked recipe.
        run: the run's folder, created if it is missing.
        only: ids of the stages to run; empty means all.
        fresh: delete earlier results of those stages.
        verbose: print the trainers' output to the terminal instead of each stage's `console.log`.

    Returns:
        The path of the report; None if it could not be written, and in worker processes.

    Raises:
        UserError: the recipe or the command line is invalid (exit code 2).
        RunError: any other failure (exit code 1).
        Stopped: a signal stopped the run; the message says where the same command continues.
    """
    chosen, pipeline = _chosen(pipeline, only), pipeline.for_run(run)
    if rank():
        quieten()
        run_as_worker(pipeline, run, [node for node in pipeline.nodes if node.id in chosen], fresh)
        return None
    with sole_run(), locked(run), stop_request.watched() as interrupts, own_output() as file:
        try:
            view = LineView(file) if verbose else view_for(file)
            return _PipelineRun(pipeline, run, interrupts, view, verbose).execute(chosen, fresh)
        except Stopped:
            raise
        except KeyboardInterrupt as error:
            raise Stopped("interrupted; the same command continues") from error
        except (UserError, RunError):
            raise
        except BaseException as error:
            if interrupts.requested:
                raise Stopped("interrupted; the same command continues") from error
            raise as_run_error(error, run, "run") from error


def chosen_nodes(pipeline: Pipeline, only: Sequence[str]) -> list[Node]:
    """Return the stages to run, in order.

    Raises:
        UserError: `only` contains an unknown stage.
    """
    ids = _chosen(pipeline, only)
    return [node for node in pipeline.nodes if node.id in ids]


class _PipelineRun:
    """One run of a pipeline in a folder, from the checks to the report."""

    def __init__(self, pipeline: Pipeline, run: Path, interrupts: StopRequest, view: View, verbose: bool) -> None:
        self.pipeline, self.run, self.interrupts, self.view, self.verbose = pipeline, run, interrupts, view, verbose
        self.known_whole: set[str] = set()
        """Ids of the stages whose files were compared whole, or written, during this run."""

    def execute(self, chosen: set[str], fresh: bool) -> Path | None:
        """Run the chosen stages that are not finished, and write the report; return its path."""
        kept = [node for node in self.pipeline.nodes if not (fresh and node.id in chosen)]
        claim(self.run, self.pipeline, fresh=fresh)
        self._check_finished(kept)
        if fresh:
            forget(self.run, chosen)
        records = {node.id: read_stage(self.run / self.pipeline.folder(node)) for node in self.pipeline.nodes}
        waiting = [node for node in self.pipeline.nodes if node.id in chosen and records[node.id].status != "finished"]
        _check_inputs(waiting, records)
        write_atomically(self.run / "recipe.yaml", self.pipeline.document)
        write_run(self.run, self.pipeline)
        report = self.run / "report.html"
        if waiting:
            quieten()
            self._check(waiting)
        stages = [(n.id, n.kind, records[n.id].status, records[n.id].seconds) for n in self.pipeline.nodes]
        self.view.open(stages)
        try:
            for node in waiting:
                self._run_and_record(node)
        except (UserError, RunError) as error:
            if not is_disk_full(error, self.run):
                self._report()
            raise
        finally:
            self.view.close()
        (self.run / "error.log").unlink(missing_ok=True)
        return self._report() if waiting or not report.exists() else report

    def _check_finished(self, nodes: Sequence[Node], *, whole: bool = False) -> None:
        """Check that the files of those of the stages that are finished are as the stage wrote them.

        Raises:
            UserError: a file is missing or changed.
        """
        faults = {}
        for node in nodes:
            folder = self.run / self.pipeline.folder(node)
            if (record := read_stage(folder)).status == "finished":
                faults[node.id] = changed_files(folder, record.files, whole=whole)
        raise_if_changed(faults)

    def _check_inputs_of(self, node: Node) -> None:
        """Read the files of the stage's inputs whole, once in a run; what this run has written need not be read."""
        inputs = [other for other in self.pipeline.nodes if other.id in node.inputs]
        self._check_finished([other for other in inputs if other.id in self.known_whole])
        self._check_finished([other for other in inputs if other.id not in self.known_whole], whole=True)
        self.known_whole.update(other.id for other in inputs)

    def _check(self, waiting: list[Node]) -> None:
        """Check what can only be found by loading: reward functions (in a child process), data and stages' files."""
        content = json.dumps(environment(), indent=2)
        write_atomically(self.run / "environment.json", content + "\n")
        check_importable(self.pipeline.targets(waiting), self.pipeline.root)
        with self._quiet(self.run / "console.log"):
            check_data(self.pipeline, waiting)
        for node in waiting:
            try:
                node.config.check_files(self.pipeline.root)
            except UserError as error:
                raise UserError(f"{self.pipeline.places[node.id]}: {error}") from error

    def _run_and_record(self, node: Node) -> None:
        """Run one stage to its end; if it fails, record its state and raise."""
        self._check_inputs_of(node)
        folder = self.run / self.pipeline.folder(node)
        before = read_stage(folder)
        begun = time.monotonic()

        def record(status: str) -> StageRecord:
            spent = before.seconds + time.monotonic() - begun
            return StageRecord(status, before.started or started, spent)  # type: ignore[arg-type]

        started = now()
        self._record(node, replace(record("running"), seconds=before.seconds))
        progress = _RecordedProgress(self.view, lambda: write_stage(self.run, self.pipeline, node, record("running")))
        stage = make_stage(self.pipeline, node, self.run, progress)
        try:
            with self._quiet(folder / "console.log"):
                run_stage(node, stage)
            if not stage.output.is_dir():
                raise RunError("it ended without writing its output folder")
            files = record_files(folder, node.config.results)
        except BaseException as error:
            interrupted = self.interrupts.requested or isinstance(error, KeyboardInterrupt)
            self._record_failure(node, record("interrupted" if interrupted else "failed"))
            if isinstance(error, Stopped):
                raise Stopped(f"interrupted; the same command continues {node.id} {error}") from error
            if interrupted:
                raise Stopped(f"interrupted in {node.id}; the same command continues with this stage") from error
            if isinstance(error, UserError | RunError) and not is_disk_full(error, self.run):
                named = f"stage {node.id}: "  # checks that also run before a run already name the stage
                raise type(error)(f"{named}{str(error).removeprefix(named)}") from error
            raise as_run_error(error, folder, f"stage {node.id}") from error
        for log in folder.glob("error*.log"):  # of an earlier attempt, also of other processes
            log.unlink()
        self.known_whole.add(node.id)
        self._record(node, replace(record("finished"), files=files))
        _free_memory()

    def _record(self, node: Node, record: StageRecord) -> None:
        """Write a stage's new state to disk and to the screen; a signal takes effect only after both."""
        with self.interrupts.held():
            write_stage(self.run, self.pipeline, node, record)
            write_run(self.run, self.pipeline, node.id if record.status == "running" else None)
            self.view.show_status(node.id, record.status, record.seconds)
        if self.interrupts.requested:
            done = "after" if record.status == "finished" else "with"
            raise Stopped(f"interrupted; the same command continues {done} {node.id}")

    def _record_failure(self, node: Node, record: StageRecord) -> None:
        """Record a stage that failed, like `_record`; a full disk prints a message instead of raising."""
        with self.interrupts.held():
            try:
                write_stage(self.run, self.pipeline, node, record)
                write_run(self.run, self.pipeline)
            except OSError as error:
                self.view.say(f"the state of {node.id} could not be recorded: {error.strerror}")
            self.view.show_status(node.id, record.status, record.seconds)

    def _report(self) -> Path | None:
        """Write the report; if that fails, print one line and return None, so that the run's results are kept."""
        try:
            with self._quiet(self.run / "console.log"):
                return _write_report(self.run)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            self.view.say(str(as_run_error(error, self.run, "the report could not be written")))
            return None

    def _quiet(self, log: Path) -> ExitStack:
        stack = ExitStack()
        if not self.verbose:
            stack.enter_context(captured(log))
        return stack


class _RecordedProgress:
    """A progress sink that also writes the stage's duration to disk every few seconds, in case the run is killed."""

    def __init__(self, view: View, record: Callable[[], None]) -> None:
        self.view, self.record, self.last = view, record, time.monotonic()

    def progress(self, done: int, total: int, unit: str, shown: Mapping[str, float]) -> None:
        """Show the progress, and record the duration if the last record is old enough."""
        self.view.progress(done, total, unit, shown)
        if time.monotonic() - self.last >= RECORD_SECONDS:
            self.record()
            self.last = time.monotonic()

    def say(self, message: str) -> None:
        """Show a message."""
        self.view.say(message)


def _write_report(run: Path) -> Path:
    from gemsmith.recipes.report import write_report

    path: Path = write_report(run)
    return path


def _chosen(pipeline: Pipeline, only: Sequence[str]) -> set[str]:
    """Return the ids of the stages to run.

    Raises:
        UserError: `only` contains an unknown stage.
    """
    ids = [node.id for node in pipeline.nodes]
    for name in only:
        if name not in ids:
            raise UserError(f"--only {name}: found no such stage, expected {listed(ids)}{did_you_mean(name, ids)}")
    return set(only or ids)


def _check_inputs(waiting: Sequence[Node], records: Mapping[str, StageRecord]) -> None:
    """Check that every input of a waiting stage is finished or runs before it."""
    ids = {node.id for node in waiting}
    for node in waiting:
        for name in node.inputs:
            if records[name].status != "finished" and name not in ids:
                raise UserError(f"--only: stage {node.id} builds on {name}, which is not finished; add --only {name}")


def _free_memory() -> None:
    """Free the memory of the last stage, so that the next one has as much as in a new process."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
