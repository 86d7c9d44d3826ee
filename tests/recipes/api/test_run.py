"""`gemsmith.run` and `open_run`: what runs, what is skipped, what comes back, and that nothing is left changed."""

import contextlib
import io
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import gemsmith
from gemsmith.recipes.run.console import QUIET, sole_run
from tests.messages import raises_facts
from tests.recipes.api.conftest import Example

STEPS = {"stages.sft.steps": 10}


def state() -> dict[str, Any]:
    """Process state that a call must restore."""
    return {
        "streams": (sys.stdout, sys.stderr),
        "descriptors": [(os.fstat(number).st_dev, os.fstat(number).st_ino) for number in (1, 2)],
        "interrupt": signal.getsignal(signal.SIGINT),
        "environment": {name: os.environ.get(name) for name in QUIET},
        "folder": Path.cwd(),
    }


def test_a_second_call_runs_nothing_that_is_finished(example: Example, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(example.folder)
    before = {
        stage.id: (stage.folder, (stage.folder / "stage.json").stat().st_mtime_ns) for stage in example.run.stages
    }
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        again = gemsmith.run(example.recipe, set=STEPS, only=["sft", "aligned"])
    assert again.folder == example.folder / "runs" / "sums"
    assert {s.id: (s.folder, (s.folder / "stage.json").stat().st_mtime_ns) for s in again.stages} == before
    assert said.getvalue().startswith("finished before: sft (")
    assert "running" not in said.getvalue()


def test_only_ran_what_it_named(example: Example):
    assert [(stage.id, stage.status) for stage in example.run.stages] == [
        ("sft", "finished"),
        ("aligned", "finished"),
        ("scores", "finished"),
    ]
    assert [row["step"] for row in example.run.metrics("sft")][-1] == STEPS["stages.sft.steps"]
    assert example.run.stage("sft").config["steps"] == 10
    assert example.recipe["stages"][0]["steps"] == 300  # the caller's dict is left alone


def test_a_run_in_a_thread_with_an_odd_stdout_says_its_progress_there_and_restores_everything(
    example: Example, tmp_path: Path
):
    before, said, caught = state(), io.StringIO(), []

    def work() -> None:
        with contextlib.redirect_stdout(said):
            try:
                gemsmith.run(example.recipe, tmp_path / "run", set={"stages.sft.steps": 2}, only="sft")
            except BaseException as error:
                caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert caught == []
    assert state() == before
    lines = said.getvalue().splitlines()
    assert lines[0] == "sft: running" and lines[-1].startswith("sft: finished after ")
    assert all(line.startswith("sft: ") for line in lines)


def test_a_program_without_standard_output_can_run(example: Example, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(example.folder)
    monkeypatch.setattr(sys, "stdout", None)
    run = gemsmith.run(example.recipe, set=STEPS, only="sft")
    assert run.stage("sft").status == "finished"


def test_ctrl_c_is_a_keyboard_interrupt_and_its_handler_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("rows.py").write_text(
        "import os, signal, time\n\ndef make():\n    os.kill(os.getppid(), signal.SIGINT)\n    time.sleep(30)\n"
    )
    stage = {"id": "sft", "kind": "sft", "data": "rows", "steps": 1, "batch": 1, "learning_rate": 1e-3}
    data = {"rows": {"source": "python", "target": "rows.py:make"}}
    recipe = {"name": "stopped", "policy": {"model": "tiny"}, "data": data, "stages": [stage]}
    before = state()
    with pytest.raises(KeyboardInterrupt):
        gemsmith.run(recipe)
    assert state() == before
    assert gemsmith.open_run("runs/stopped").stage("sft").status == "to run"


def test_a_second_run_in_one_process_is_refused(example: Example, tmp_path: Path):
    with sole_run(), raises_facts(gemsmith.UserError, "another run", "process"):
        gemsmith.run(example.recipe, tmp_path / "run", only="sft")


@pytest.mark.parametrize(
    ("only", "facts"),
    [
        ("stf", ("only", '"stf"', "aligned", "scores", '"sft"')),
        (["scores"], ("only", '"scores"', '"sft"', "not finished", "`only`")),
    ],
)
def test_a_wrong_only_is_named_before_anything_runs(
    example: Example, tmp_path: Path, only: Any, facts: tuple[str, ...]
):
    with raises_facts(gemsmith.UserError, *facts) as caught:
        gemsmith.run(example.recipe, tmp_path / "run", only=only)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_failed_stage_is_a_run_error_and_stays_readable(example: Example, tmp_path: Path):
    expect = [{"better": "sft", "than": "sft", "by": 20}]
    with pytest.raises(gemsmith.RunError, match=r"^stage scores: .*gain"):
        gemsmith.run(example.recipe, example.run.folder, set={**STEPS, "stages.scores.expect": expect})
    run = gemsmith.open_run(example.run.folder)
    assert [stage.status for stage in run.stages] == ["finished", "finished", "failed"]
    gemsmith.run(example.recipe, example.run.folder, set=STEPS)  # back to the recipe whose scores are finished


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    with raises_facts(gemsmith.UserError, tmp_path, "run.json"):
        gemsmith.open_run(tmp_path)
