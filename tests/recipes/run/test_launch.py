"""`gemsmith run --processes N` as a person sees it: one voice, one exit code, and it continues."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.pipeline.pipeline import open_recipe
from gemsmith.recipes.run import launch
from gemsmith.recipes.run.machine import cores
from tests.messages import assert_facts, raises_facts

RECIPE = """
name: small
policy: {model: tiny}
data:
  sums:
    source: reasoning_gym
    task: chain_sum
    size: 100
    options: {min_terms: 2, max_terms: 2, min_digits: 1, max_digits: 1}
    prompt: "{metadata[expression]} ="
    synthesise: {right: 0.75}
rewards:
  mine: {kind: python, target: "mine.py:score"}
stages:
  - id: bond
    kind: bond
    data: sums
    rewards: [mine]
    steps: 3
    batch: 4
    learning_rate: 1.0e-4
    save_every: 1
    sampling: {max_tokens: 4}
"""
REWARD = """
import os
from pathlib import Path

def score(prompts, completions, **columns):
    if os.environ.get("RANK") == "1" and Path("broken").exists():
        raise ValueError("no such unit")
    return [float(len(c)) for c in completions]
"""
needs_two_cores = pytest.mark.skipif(cores() < 2, reason="two processes need two cores")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(REWARD)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def start(recipe: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "gemsmith", "run", str(recipe), "--processes", "2", *options]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    environment["OMP_NUM_THREADS"] = "1"
    return subprocess.Popen(
        command,
        cwd=recipe.parent,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def test_members_at_once_are_refused_under_several_processes_before_anything_runs(recipe: Path):
    warm = "stages=[{id: warm, kind: warm, data: sums, steps: 1, batch: 4, learning_rate: 1e-3, parallel: 2}]"
    pipeline = open_recipe(str(recipe), [warm])
    with raises_facts(UserError, "stages.warm.parallel", "parallel 2", "2 processes"):
        launch.check_shares(pipeline, pipeline.nodes, 2)
    launch.check_shares(pipeline, pipeline.nodes, 1)


@needs_two_cores
@pytest.mark.slow
def test_one_message_for_a_fault_in_any_process_and_then_the_run_continues(recipe: Path) -> None:
    (recipe.parent / "broken").touch()
    failed = start(recipe)
    out, err = failed.communicate(timeout=200)
    assert failed.returncode == 2, err
    assert err.count("gemsmith:") == 1 and "no such unit" in err and "process 2" in err and "Traceback" not in err
    (recipe.parent / "broken").unlink()
    done = start(recipe)
    out, err = done.communicate(timeout=200)
    assert (done.returncode, err) == (0, "")
    assert out.count("run: runs/small") == 1 and out.count("bond: finished") == 1
    folder = next((recipe.parent / "runs/small/stages").glob("bond-*"))
    assert [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert json.loads((recipe.parent / "runs/small/environment.json").read_text())["processes"] == 2
    assert (folder / "console-1.log").exists()


@pytest.mark.slow
@needs_two_cores
@pytest.mark.parametrize("engine", ["engine.deepspeed.zero=3", "engine.report_to=[]"])
def test_ctrl_c_ends_every_process_and_the_run_continues_from_its_checkpoint(recipe: Path, engine: str) -> None:
    options = ("--set", "stages.bond.steps=40", "--set", engine)
    stopped = start(recipe, *options)
    folder = None
    for _ in range(400):
        folder = next((recipe.parent / "runs/small/stages").glob("bond-*/metrics.jsonl"), None)
        if folder is not None and folder.read_text().count("\n") >= 3:
            break
        time.sleep(0.3)
    os.killpg(stopped.pid, signal.SIGINT)
    out, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    announced, ended = err.splitlines()
    assert_facts(announced, "end of this step", "at once")
    assert_facts(ended, "interrupted", "continues bond from step")
    done = start(recipe, *options)
    out, err = done.communicate(timeout=200)
    assert (done.returncode, err) == (0, "") and "continued" in out
    assert folder is not None
    assert [json.loads(line)["step"] for line in folder.read_text().splitlines()] == list(range(1, 41))


def test_more_processes_than_places_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(launch, "cores", lambda: 4)
    monkeypatch.setattr(launch, "gpus", lambda: [])
    launch.check_count(4)
    with raises_facts(UserError, "--processes 5", "4 cores"):
        launch.check_count(5)
    monkeypatch.setattr(launch, "gpus", lambda: ["H100, 80 GB"])
    with raises_facts(UserError, "--processes 2", "1 GPU"):
        launch.check_count(2)


def test_a_launcher_inside_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    with raises_facts(UserError, "--processes", "RANK"):
        launch.check_count(1)


@pytest.mark.parametrize(
    ("option", "facts"),
    [
        ("stages.bond.batch=5", ("2 processes", "batch 5")),
        ("stages.bond.micro_batch=4", ("micro_batch 4", "2 examples")),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused_before_anything_starts(
    recipe: Path, option: str, facts: tuple[str, ...]
) -> None:
    refused = start(recipe, "--set", option)
    _, err = refused.communicate(timeout=60)
    assert refused.returncode == 2 and err.count("gemsmith:") == 1
    assert_facts(err, *facts)
    assert not (recipe.parent / "runs").exists()
