"""Terminal output of a run: plain lines without a terminal, a live list with a progress bar on one."""

import io
import os
import pty

import pytest
from rich.console import Console

from gemsmith.recipes.run.view import LineView, LiveView, StagePace, duration, view_for


def test_a_file_gets_plain_lines_and_a_terminal_a_live_list(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(view_for(io.StringIO()), LineView)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, os.fdopen(ours, "rb"):
        assert isinstance(view_for(terminal), LiveView)


def test_many_reports_make_few_lines():
    file = io.StringIO()
    view = LineView(file, every=3600)
    view.open([("sft", "sft", "to run", 0.0)])
    view.show_status("sft", "running", 0.0)
    for step in range(1000):
        view.progress(step, 1000, "step", {"loss": 1.0})
    view.show_status("sft", "finished", 71.0)
    assert file.getvalue() == "sft: running\nsft: finished after 1m11s\n"


def test_a_line_tells_progress_rate_remaining_time_and_metrics():
    file = io.StringIO()
    view = LineView(file, every=0)
    view.show_status("sft", "running", 0.0)
    view.progress(10, 40, "step", {"kl_to_initial": 0.5})
    view.pace.first = (view.pace.begun - 10, 0)  # begun ten seconds ago at step 0
    view.progress(20, 40, "step", {"kl_to_initial": 0.25})
    last = file.getvalue().splitlines()[-1]
    assert last == "sft: 20/40 step, 2/s, 10s left, kl to initial 0.25"


def test_the_pace_of_a_resumed_stage_counts_from_where_it_resumed():
    pace = StagePace()
    pace.report(900, 1000, "step", {})
    assert pace.rate is None  # 900 steps were made by an earlier process
    pace.first = (pace.begun - 5, 900)
    pace.report(910, 1000, "step", {})
    assert 1.5 < pace.rate <= 2.0  # ten steps in the five seconds since


def test_the_live_list_shows_each_stage_and_the_bar_of_the_running_one():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    view = LiveView(console)
    view.open([("sft", "sft", "finished", 71.0), ("it", "distill", "to run", 0.0)])
    view.show_status("it", "running", 0.0)
    view.progress(25, 100, "step", {"loss": 1.5})
    shown = Console(width=100, file=io.StringIO(), record=True)
    shown.print(view.render())
    view.close()
    text = shown.export_text()
    assert "✓  sft  sft      finished  1m11s" in text
    assert "25%" in text
    assert "25/100 step, loss 1.5" in text


def test_durations_are_written_as_people_say_them():
    assert [duration(s) for s in (0.42, 9.96, 41.2, 185, 7620)] == ["0.4s", "10.0s", "41s", "3m05s", "2h07m"]
