"""The runner with a small real stage: what is skipped, what continues, and how each fault ends."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from counting_stage import __file__ as COMMAND
from counting_stage import pipeline_of

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.recipes.run.runner import run_pipeline
from tests.messages import assert_facts, raises_facts

TWO: dict[str, dict[str, Any]] = {"a": {}, "b": {"from": "a", "steps": 4}}


def stage_folder(run: Path, name: str) -> Path:
    (folder,) = (run / "stages").glob(f"{name}-*")
    return folder


def record(run: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((stage_folder(run, name) / "stage.json").read_text())
    return content


def trace(run: Path, name: str) -> list[int]:
    """Every step that was ever counted, over all attempts."""
    return [int(line) for line in (stage_folder(run, name) / "trace").read_text().split()]


def command(run: Path, stages: dict[str, Any], *options: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, COMMAND, str(run), json.dumps(stages), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=60)
    return process.returncode, out, error


def test_stages_run_in_order_and_leave_their_records(tmp_path: Path):
    run = tmp_path / "run"
    pipeline = pipeline_of(TWO, tmp_path, seed=7)
    run_pipeline(pipeline, run)
    assert (stage_folder(run, "b") / "output" / "count").read_text() == "7"  # 3 from a, and 4
    b = record(run, "b")
    assert (b["status"], b["kind"], b["identity"]) == ("finished", "count", pipeline.identities["b"])
    assert b["inputs"] == {"a": pipeline.identities["a"]}
    assert b["config"]["policy"]["from"] == "a"
    whole = json.loads((run / "run.json").read_text())
    assert (whole["name"], whole["seed"]) == ("counting", 7)
    assert [(s["id"], s["status"], s["inputs"]) for s in whole["stages"]] == [
        ("a", "finished", []),
        ("b", "finished", ["a"]),
    ]
    assert all((run / s["folder"] / "output").is_dir() for s in whole["stages"])
    assert json.loads((run / "environment.json").read_text())["cores"] >= 1


def test_a_finished_stage_is_not_run_again(tmp_path: Path):
    run = tmp_path / "run"
    run_pipeline(pipeline_of(TWO, tmp_path), run)
    run_pipeline(pipeline_of({**TWO, "b": {"from": "a", "steps": 4, "save_every": 2}}, tmp_path), run)
    assert trace(run, "a") == [1, 2, 3]
    assert trace(run, "b") == [1, 2, 3, 4]


def test_a_changed_stage_runs_again_and_the_old_one_stays(tmp_path: Path):
    run = tmp_path / "run"
    first, second = pipeline_of(TWO, tmp_path), pipeline_of({"a": {}, "b": {"from": "a", "steps": 5}}, tmp_path)
    run_pipeline(first, run)
    run_pipeline(second, run)
    assert trace(run, "a") == [1, 2, 3]
    assert (run / second.folder(second.nodes[1]) / "output" / "count").read_text() == "8"
    run_pipeline(first, run)
    assert (run / first.folder(first.nodes[1]) / "trace").read_text().split() == ["1", "2", "3", "4"]


def test_a_stage_whose_output_was_removed_runs_again(tmp_path: Path):
    run = tmp_path / "run"
    run_pipeline(pipeline_of({"a": {}}, tmp_path), run)
    output = stage_folder(run, "a") / "output"
    (output / "count").unlink()
    output.rmdir()
    run_pipeline(pipeline_of({"a": {}}, tmp_path), run)
    assert (output / "count").read_text() == "3"


def test_fresh_forgets_what_was_done(tmp_path: Path):
    run = tmp_path / "run"
    run_pipeline(pipeline_of(TWO, tmp_path), run)
    (stage_folder(run, "a") / "trace").write_text("9\n")
    run_pipeline(pipeline_of(TWO, tmp_path), run, only=["b"], fresh=True)
    assert trace(run, "a") == [9]
    run_pipeline(pipeline_of(TWO, tmp_path), run, fresh=True)
    assert trace(run, "a") == [1, 2, 3]


def test_only_runs_what_it_names_and_asks_for_what_that_builds_on(tmp_path: Path):
    run = tmp_path / "run"
    pipeline = pipeline_of(TWO, tmp_path)
    with raises_facts(UserError, "stage b", "not finished", "--only a"):
        run_pipeline(pipeline, run, only=["b"])
    with raises_facts(UserError, "--only c", "a", "b"):
        run_pipeline(pipeline, run, only=["c"])
    run_pipeline(pipeline, run, only=["a"])
    assert not list((run / "stages").glob("b-*/output"))
    run_pipeline(pipeline, run, only=["b"])
    assert trace(run, "a") == [1, 2, 3]


def test_a_killed_run_continues_from_its_checkpoint(tmp_path: Path):
    run, cured = tmp_path / "run", tmp_path / "cured"
    stages = {**TWO, "b": {"from": "a", "steps": 4, "fault": "kill", "at": 3, "cured": str(cured)}}
    code, _, _ = ended(command(run, stages))
    assert code == -signal.SIGKILL
    assert record(run, "b")["status"] == "running"
    cured.touch()
    code, out, error = ended(command(run, stages))
    assert (code, error) == (0, "")
    assert trace(run, "a") == [1, 2, 3]  # finished before the kill
    assert trace(run, "b") == [1, 2, 3, 4]  # no step twice
    assert "finished before: a" in out
    assert record(run, "b")["status"] == "finished"


@pytest.mark.parametrize("fault", ["wait", "wait_swallow"])
def test_ctrl_c_ends_with_130_and_the_same_command_continues(tmp_path: Path, fault: str):
    run, cured, ready = tmp_path / "run", tmp_path / "cured", tmp_path / "ready"
    os.mkfifo(ready)
    stages = {**TWO, "b": {"from": "a", "steps": 4, "fault": fault, "at": 3, "cured": str(cured)}}
    process = command(run, stages, READY=str(ready))
    assert ready.read_text() == "here"  # blocks until the stage has come to step 3
    process.send_signal(signal.SIGINT)
    code, _, error = ended(process)
    assert code == 130
    assert error == "gemsmith: interrupted in b; the same command continues with this stage\n"
    assert record(run, "b")["status"] == "interrupted"
    assert json.loads((run / "run.json").read_text())["stages"][1]["status"] == "interrupted"
    cured.touch()
    assert ended(command(run, stages))[0] == 0
    assert trace(run, "b") == [1, 2, 3, 4]


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_is_at_work(tmp_path: Path):
    run, ready = tmp_path / "run", tmp_path / "ready"
    os.mkfifo(ready)
    first = command(run, {"a": {"fault": "wait"}}, READY=str(ready))
    assert ready.read_text() == "here"
    code, _, error = ended(command(run, {"a": {}}))
    first.kill()
    first.communicate()
    assert code == 2
    assert_facts(error, run, "another run", f"process {first.pid}", "--out")


@pytest.mark.parametrize(
    ("fault", "code", "start", "facts"),
    [
        ("user", 2, "stage b: found a prompt that is too long", ()),
        ("user_named", 2, "stage b: found a prompt that is too long", ()),
        ("run", 1, "stage b: the reward brief never came back", ()),
        ("bug", 1, "stage b: ZeroDivisionError: inside the trainer", ("{run}/stages/b-", "/error.log")),
        ("exit", 1, "stage b: SystemExit: 3", ("{run}/stages/b-", "/error.log")),
        ("full", 1, "stage b: ", ("disk", "{run}", "full")),
        ("wrapped_full", 1, "stage b: ", ("disk", "{run}", "full")),
        ("no_output", 1, "stage b: ", ("output folder",)),
    ],
)
def test_a_fault_ends_with_one_line_its_exit_code_and_what_was_finished_stays(
    tmp_path: Path, fault: str, code: int, start: str, facts: tuple[str, ...]
):
    run = tmp_path / "run"
    returned, out, error = ended(command(run, {**TWO, "b": {"from": "a", "fault": fault}}))
    assert returned == code
    assert error.startswith(f"gemsmith: {start}")
    assert_facts(error, *(fact.format(run=run) for fact in facts))
    assert len(error.splitlines()) == 1
    assert "Traceback" not in out + error
    assert record(run, "a")["status"] == "finished"
    assert record(run, "b")["status"] == "failed"


def test_the_traceback_of_an_unforeseen_error_is_kept(tmp_path: Path):
    run = tmp_path / "run"
    with pytest.raises(RunError):
        run_pipeline(pipeline_of({"a": {"fault": "bug"}}, tmp_path), run)
    text = (stage_folder(run, "a") / "error.log").read_text()
    assert "counting_stage.py" in text
    assert "ZeroDivisionError: inside the trainer" in text


def test_the_traceback_goes_when_the_stage_succeeds(tmp_path: Path):
    run, cured = tmp_path / "run", tmp_path / "cured"
    pipeline = pipeline_of({"a": {"fault": "bug", "cured": str(cured)}, "b": {"fault": "bug"}}, tmp_path)
    with raises_facts(RunError, "stage a", "error.log"):
        run_pipeline(pipeline, run)
    (run / "error.log").write_text("of an older version")
    cured.touch()
    with raises_facts(RunError, "stage b", "error.log"):
        run_pipeline(pipeline, run)
    assert sorted(run.rglob("error.log")) == [run / "error.log", stage_folder(run, "b") / "error.log"]
    run_pipeline(pipeline, run, only=["a"])
    assert list(run.rglob("error.log")) == [stage_folder(run, "b") / "error.log"]


def test_a_failed_stage_continues_once_the_fault_is_gone(tmp_path: Path):
    run, cured = tmp_path / "run", tmp_path / "cured"
    pipeline = pipeline_of({"a": {"fault": "full", "at": 3, "cured": str(cured)}}, tmp_path)
    with raises_facts(RunError, "stage a", "disk", "full"):
        run_pipeline(pipeline, run)
    before = record(run, "a")
    cured.touch()
    run_pipeline(pipeline, run)
    assert trace(run, "a") == [1, 2, 3]
    assert record(run, "a")["started"] == before["started"]
    assert record(run, "a")["seconds"] > before["seconds"]


def test_what_stages_print_goes_to_their_log_and_not_to_the_screen(tmp_path: Path):
    run = tmp_path / "run"
    code, out, error = ended(command(run, {"a": {"noise": "chatter"}}))
    assert code == 0
    assert "chatter" not in out + error
    log = (stage_folder(run, "a") / "console.log").read_text()
    assert log.count("chatter from a child") == 3
    assert log.count("chatter") == 6


def test_what_stages_print_does_not_break_the_live_list_on_a_terminal(tmp_path: Path):
    ours, theirs = pty.openpty()
    stages = json.dumps({"a": {"noise": "chatter"}})
    process = subprocess.Popen(
        [sys.executable, COMMAND, str(tmp_path / "run"), stages],
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal ends on Linux
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert "✓".encode() in shown
    assert b"chatter" not in shown


def test_several_processes_train_along_and_the_first_keeps_the_records(tmp_path: Path):
    run, ready = tmp_path / "run", tmp_path / "ready"
    os.mkfifo(ready)
    stages = {"a": {"fault": "meet"}, "b": {"from": "a", "fault": "meet"}}
    follower = command(run, stages, RANK="1", WORLD_SIZE="2", READY=str(ready))
    leader = command(run, stages, RANK="0", WORLD_SIZE="2", READY=str(ready))
    assert ended(leader)[0] == 0  # it cannot pass a or b without the other
    assert ended(follower) == (0, "", "")
    assert trace(run, "a") == [1, 2, 3]
    assert record(run, "b")["status"] == "finished"
