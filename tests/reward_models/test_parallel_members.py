"""Members trained at once in separate processes, compared with the same members one after another."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Silence
from gemsmith.contracts.stopping import Stopped, stop_request
from gemsmith.policy.config import DeepSpeedConfig, EngineConfig, LoraConfig
from gemsmith.policy.training.parallel_workers import thread_share
from gemsmith.reward_models.warm import run
from tests.messages import assert_facts, raises_facts
from tests.reward_models.stages import warm_stage, write_pairs
from tests.warm_python import WarmPython

FIELDS: dict[str, Any] = {
    "steps": 4, "save_every": 2, "lora": LoraConfig(rank=2), "dropout_in": "lora", "dropouts": [0.1, 0.3],
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread, as the members' processes do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("together")
    write_pairs(root / "pairs.jsonl")
    return root


@pytest.fixture(scope="module")
def in_turn(root: Path) -> Path:
    """Return the folder of a stage whose members were trained one after another."""
    config, stage = warm_stage(root / "in-turn", root, **FIELDS)
    run(config, stage)
    return stage.folder


class Watcher(Silence):
    """Sink that records progress and messages."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []
        self.said: list[str] = []

    def progress(self, done: int, total: int, unit: str, shown: Mapping[str, float]) -> None:
        self.told.append((done, total))

    def say(self, message: str) -> None:
        self.said.append(message)


def children(parent: int) -> list[int]:
    """Return the ids of the processes that train members for `parent`, oldest first."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            program = (status.parent / "cmdline").read_text().split("\0")
            if "gemsmith.reward_models.member_process" in program and program[-2] == str(parent):
                found.append(int(status.parent.name))
        except OSError:
            continue
    return sorted(found)


def losses(folder: Path) -> list[tuple[int, int, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return sorted((row["member"], row["step"], row["loss"]) for row in rows if "loss" in row)


@pytest.mark.slow
def test_a_member_that_fails_is_told_and_stops_the_others_and_then_they_continue_to_what_they_are_in_turn(
    root: Path, tmp_path: Path, in_turn: Path
):
    (tmp_path / "members").mkdir()
    obstacle = tmp_path / "members/1.checkpoints"
    obstacle.write_text("in the way")
    config, stage = warm_stage(tmp_path, root, parallel=2, **FIELDS)
    with pytest.raises(RunError, match=r"member 1 failed: FileExistsError: (.|\n)*members/1\.log:\n(.|\n)*checkpoints"):
        run(config, stage)
    assert children(os.getpid()) == [] and not (tmp_path / "members/2").exists()
    obstacle.unlink()
    stage.sink = watcher = Watcher()
    run(config, stage)
    for folder in ("members/0", "members/1", "members/2", "output"):
        found, expected = (path / folder / "model.safetensors" for path in (tmp_path, in_turn))
        assert found.read_bytes() == expected.read_bytes()
    assert (tmp_path / "output/warm.json").read_text() == (in_turn / "output/warm.json").read_text()
    assert losses(tmp_path) == losses(in_turn)
    assert watcher.told[-1][0] == watcher.told[-1][1] and watcher.told == sorted(watcher.told)
    assert "training 2 members at once, with one thread each" in watcher.said
    assert not list((tmp_path / "members").glob("*.checkpoints"))


@pytest.mark.slow
def test_a_stage_that_is_killed_leaves_no_member_at_work(
    root: Path, tmp_path: Path, in_turn: Path, warm_python: WarmPython
):
    shutil.copytree(in_turn / "probe", tmp_path / "probe")
    code = (
        "import sys; from pathlib import Path\n"
        "from gemsmith.reward_models.warm import run\n"
        "from tests.reward_models.stages import warm_stage\n"
        "run(*warm_stage(Path(sys.argv[1]), Path(sys.argv[2]), parallel=2, steps=10_000))\n"
    )
    started = warm_python.start(["-c", code, str(tmp_path), str(root)])
    wait_for(lambda: len(children(started.pid)) == 2, seconds=240)
    os.kill(started.pid, signal.SIGKILL)
    wait_for(lambda: not children(started.pid), seconds=5)
    assert started.wait(60).returncode == -signal.SIGKILL


class Stopper(Watcher):
    """Sink that sends its own process SIGTERM at the first progress of a member."""

    def progress(self, done: int, total: int, unit: str, shown: Mapping[str, float]) -> None:
        """Send the signal once."""
        if not self.told:
            os.kill(os.getpid(), signal.SIGTERM)
        super().progress(done, total, unit, shown)


@pytest.mark.slow
def test_members_that_are_stopped_save_at_the_end_of_their_step_and_continue(root: Path, tmp_path: Path, in_turn: Path):
    config, stage = warm_stage(tmp_path, root, parallel=2, **FIELDS | {"save_every": 100})
    shutil.copytree(in_turn / "probe", tmp_path / "probe")
    stage.sink = Stopper()
    with stop_request.watched(), raises_facts(Stopped, "member", "from step"):
        run(config, stage)
    assert children(os.getpid()) == [] and list((tmp_path / "members").glob("*.checkpoints/checkpoint-*/complete"))
    stage.sink = Watcher()
    with stop_request.watched():
        run(config, stage)
    assert (tmp_path / "output/warm.json").read_text() == (in_turn / "output/warm.json").read_text()
    assert losses(tmp_path) == losses(in_turn)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_member_that_is_killed_is_told_with_its_number(root: Path, tmp_path: Path, in_turn: Path):
    config, stage = warm_stage(tmp_path, root, parallel=2, **FIELDS | {"members": 2})
    shutil.copytree(in_turn / "probe", tmp_path / "probe")
    killer = Thread(target=kill_the_first_child, daemon=True)
    killer.start()
    with pytest.raises(RunError, match=r"member [01] .*SIGKILL"):
        run(config, stage)
    killer.join()
    assert children(os.getpid()) == []


def kill_the_first_child() -> None:
    wait_for(lambda: bool(children(os.getpid())), seconds=60)
    os.kill(children(os.getpid())[0], signal.SIGKILL)


def test_threads_are_shared_out():
    assert [thread_share(threads, parallel) for threads, parallel in ((8, 2), (7, 2), (2, 4))] == [4, 3, 1]


def test_members_at_once_are_for_one_process_in_plain_torch(root: Path, tmp_path: Path):
    config, stage = warm_stage(tmp_path, root, parallel=2)
    stage.engine = EngineConfig(deepspeed=DeepSpeedConfig())
    with raises_facts(UserError, "parallel 2", "DeepSpeed", "parallel 1"):
        run(config, stage)
    assert_facts(config.parallel_fault(3, deepspeed=False), "parallel 2", "3 processes")
    one = config.model_copy(update={"parallel": 1})
    assert one.parallel_fault(3, deepspeed=True) is None and config.parallel_fault(1, deepspeed=False) is None
