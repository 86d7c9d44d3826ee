"""A stage that is killed with SIGKILL and resumed ends with exactly the weights of an uninterrupted run."""

import json
import signal
from pathlib import Path

import pytest

from tests.warm_python import WarmPython

ROOT = Path(__file__).parents[3]


def _run(python: WarmPython, folder: Path, kind: str, kill_after: int | str = 0) -> int:
    folder.mkdir(exist_ok=True)
    program = [str(ROOT / "tests/rl/stages/killable.py"), folder.name, kind, str(kill_after)]
    return python.run(program, cwd=folder.parent).returncode


@pytest.mark.parametrize(
    ("kind", "kill_after"),
    [
        *(
            ("sft", 5),
            ("distill", 5),
            ("distill:own", 5),
            ("qat", 5),
            ("bond", 5),
            ("bond:classifier", 5),
            ("reinforce", 3),
        ),
        ("grpo", 5),  # between two updates of one rollout
        ("warp", 15),  # in its third run of six steps
    ],
)
def test_a_killed_stage_continues_to_the_same_weights(
    kind: str, kill_after: int, tmp_path: Path, warm_python: WarmPython
) -> None:
    assert _run(warm_python, tmp_path / "whole", kind) == 0
    assert _run(warm_python, tmp_path / "killed", kind, kill_after) == -signal.SIGKILL
    assert not (tmp_path / "killed/output").exists()
    assert _run(warm_python, tmp_path / "killed", kind) == 0
    whole, resumed = (tmp_path / name / "output/model.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == resumed.read_bytes()
    assert (tmp_path / "whole/metrics.jsonl").read_text().count("\n") == (
        tmp_path / "killed/metrics.jsonl"
    ).read_text().count("\n")


@pytest.mark.parametrize(
    ("kind", "when", "step"),
    [
        ("sft", "1:SIGTERM", 1),
        ("qat", "3:SIGHUP", 3),
        ("distill:own", "1:SIGINT", 1),
        ("bond:classifier", "1:SIGTERM", 1),
        ("grpo", "1:SIGTERM", 2),  # the two updates of a rollout belong together
        ("warp", "7:SIGTERM", 1),  # the first step of the second run
    ],
)
def test_a_stopped_training_saves_at_the_end_of_its_step_and_continues_to_the_same_weights(
    kind: str, when: str, step: int, tmp_path: Path, warm_python: WarmPython
) -> None:
    sent = signal.Signals[when.partition(":")[2]]
    assert _run(warm_python, tmp_path / "whole", kind) == 0
    assert _run(warm_python, tmp_path / "stopped", kind, when) == 128 + sent
    assert (tmp_path / "stopped/stopped.txt").read_text() == f"from step {step}"
    assert _run(warm_python, tmp_path / "stopped", kind) == 0
    whole, resumed = (tmp_path / name / "output/model.safetensors" for name in ("whole", "stopped"))
    assert whole.read_bytes() == resumed.read_bytes()
    assert _rows(tmp_path / "whole") == _rows(tmp_path / "stopped")


def _rows(folder: Path) -> list[dict[str, object]]:
    """Return the metrics without those that measure time."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


def test_the_seed_decides_the_result(tmp_path: Path, warm_python: WarmPython) -> None:
    """Two uninterrupted runs are bit-identical; without this the comparison above would prove nothing."""
    assert _run(warm_python, tmp_path / "a", "bond") == 0
    assert _run(warm_python, tmp_path / "b", "bond") == 0
    assert (tmp_path / "a/output/model.safetensors").read_bytes() == (
        tmp_path / "b/output/model.safetensors"
    ).read_bytes()
