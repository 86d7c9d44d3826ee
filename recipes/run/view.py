"""Terminal output of a run: a live list of stages on a terminal, plain lines anywhere else."""

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gemsmith.contracts.escaping import visible

LINE_EVERY = 5.0
STYLES = {"finished": "green", "running": "bold cyan", "failed": "bold red", "interrupted": "yellow", "to run": "dim"}
MARKS = {"finished": "✓", "running": "▶", "failed": "✗", "interrupted": "◼", "to run": "·"}


class View(Protocol):
    """A progress sink that also shows the list of stages."""

    def open(self, stages: Sequence[tuple[str, str, str, float]]) -> None:
        """Begin with a list of stages, as tuples of id, kind, status and seconds so far."""

    def show_status(self, stage: str, status: str, seconds: float) -> None:
        """Show a stage's new status."""

    def progress(self, done: int, total: int, unit: str, shown: Mapping[str, float]) -> None:
        """Show the progress of the running stage: `done` of `total` units, and its metrics."""

    def say(self, message: str) -> None:
        """Show one line of text."""

    def close(self) -> None:
        """Draw the final state."""


@dataclass
class StageRow:
    """One stage of the list."""

    id: str
    kind: str
    status: str
    seconds: float


@dataclass
class StagePace:
    """The speed of the running stage, counted from its first report because a resumed stage starts in the middle."""

    begun: float = field(default_factory=time.monotonic)
    first: tuple[float, int] | None = None
    done: int = 0
    total: int = 0
    unit: str = "step"
    shown: Mapping[str, float] = field(default_factory=dict)

    def report(self, done: int, total: int, unit: str, shown: Mapping[str, float]) -> None:
        """Store one progress report."""
        if self.first is None or done < self.done:
            self.first = (time.monotonic(), done)
        self.done, self.total, self.unit, self.shown = done, total, unit, dict(shown)

    @property
    def rate(self) -> float | None:
        """Return units per second, or None before the second report."""
        if self.first is None or self.done <= self.first[1]:
            return None
        return (self.done - self.first[1]) / max(time.monotonic() - self.first[0], 1e-9)

    def text(self) -> str:
        """Return the progress as text, such as `120/400 step, 3.1/s, 1m30s left, loss 1.23`."""
        parts = [f"{self.done}/{self.total} {self.unit}"]
        if rate := self.rate:
            parts.append(f"{rate:.3g}/s" if rate >= 0.1 else f"{duration(1 / rate)} each")
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        return ", ".join([*parts, *metric_texts(self.shown)])


class LineView:
    """A view with plain lines: at the start and end of each stage, and at most one every few seconds in between."""

    def __init__(self, file: IO[str] | None = None, every: float = LINE_EVERY) -> None:
        self.console = Console(
            file=file, force_terminal=False, force_jupyter=False, soft_wrap=True, highlight=False, markup=False
        )
        self.every = every
        self.stage = ""
        self.pace = StagePace()
        self.last = 0.0

    def open(self, stages: Sequence[tuple[str, str, str, float]]) -> None:
        """Print the stages that are already finished."""
        finished = [f"{name} ({duration(seconds)})" for name, _, status, seconds in stages if status == "finished"]
        if finished:
            self.console.print("finished before: " + ", ".join(finished))

    def show_status(self, stage: str, status: str, seconds: float) -> None:
        """Print one line for the start or the end of a stage."""
        self.stage, self.pace, self.last = stage, StagePace(), time.monotonic()
        again = f", continued after {duration(seconds)}" if status == "running" and seconds else ""
        after = f" after {duration(seconds)}" if status != "running" else ""
        self.console.print(visible(f"{stage}: {status}{again}{after}"))

    def progress(self, done: int, total: int, unit: str, shown: Mapping[str, float]) -> None:
        """Print one line, unless the last one is only a few seconds old."""
        self.pace.report(done, total, unit, shown)
        if time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            self.console.print(visible(f"{self.stage}: {self.pace.text()}"))

    def say(self, message: str) -> None:
        """Print one line."""
        self.console.print(visible(f"{self.stage}: {message}" if self.stage else message))

    def close(self) -> None:
        """Stop attributing messages to a stage."""
        self.stage = ""


class LiveView:
    """A view with a list of stages that is redrawn in place, and the running stage's progress bar and metrics."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.rows: dict[str, StageRow] = {}
        self.pace = StagePace()
        self.live = Live(
            get_renderable=self.render,
            console=console,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def open(self, stages: Sequence[tuple[str, str, str, float]]) -> None:
        """Show the list."""
        self.rows = {name: StageRow(name, kind, status, seconds) for name, kind, status, seconds in stages}
        self.live.start()

    def show_status(self, stage: str, status: str, seconds: float) -> None:
        """Update a stage's row."""
        row = self.rows[stage]
        row.status, row.seconds = status, seconds
        self.pace = StagePace()

    def progress(self, done: int, total: int, unit: str, shown: Mapping[str, float]) -> None:
        """Update the progress bar."""
        self.pace.report(done, total, unit, shown)

    def say(self, message: str) -> None:
        """Print one line above the list."""
        self.live.console.print(Text(visible(message)))

    def close(self) -> None:
        """Draw the list a last time and leave it on the screen."""
        self.live.stop()

    def render(self) -> RenderableType:
        """Return the list in its present state."""
        table = Table.grid(padding=(0, 2))
        for row in self.rows.values():
            running = row.status == "running"
            seconds = row.seconds + (time.monotonic() - self.pace.begun if running else 0.0)
            spent = duration(seconds) if seconds else ""
            style = STYLES.get(row.status, "")
            mark = Text(MARKS.get(row.status, " "), style=style)
            table.add_row(
                mark, Text(row.id, style=style), Text(row.kind, style="dim"), Text(row.status, style=style), spent
            )
        if not any(row.status == "running" for row in self.rows.values()) or not self.pace.total:
            return table
        bar = ProgressBar(total=self.pace.total, completed=self.pace.done, width=40)
        line = Table.grid(padding=(0, 1))
        line.add_row(Text(" "), bar, Text(f"{100 * self.pace.done // self.pace.total}%"))
        return Group(table, line, Text("  " + visible(self.pace.text()), style="dim", overflow="ellipsis"))


def view_for(file: IO[str]) -> View:
    """Return a live view if the file is a terminal, and plain lines otherwise.

    The check is stricter than rich's own: some notebook streams claim to be terminals, and rich takes FORCE_COLOR as
    a sign of a terminal.
    """
    console = Console(file=file, force_jupyter=False)
    terminal = isinstance(file, io.TextIOWrapper) and file.isatty() and console.is_terminal
    return LiveView(console) if terminal and not console.is_dumb_terminal else LineView(file)


def metric_texts(shown: Mapping[str, float]) -> list[str]:
    """Return a text such as `loss 1.23` for each metric."""
    return [f"{name.replace('_', ' ')} {value:.4g}" for name, value in shown.items()]


def duration(seconds: float) -> str:
    """Return a duration as text: `0.4s`, `41s`, `3m05s` or `2h07m`."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
