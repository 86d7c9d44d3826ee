"""A stage that is killed with SIGKILL and resumed ends with exactly the weights of an uninterrupted run."""

import signal
from pathlib import Path

import pytest

from tests.warm_python import WarmPython

ROOT = Path(__file__).parents[3]


def _run(python: WarmPython, folder: Path, kind: str, kill_after: int = 0) -> int:
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


def test_the_seed_decides_the_result(tmp_path: Path, warm_python: WarmPython) -> None:
    """Two uninterrupted runs are bit-identical; without this the comparison above would prove nothing."""
    assert _run(warm_python, tmp_path / "a", "bond") == 0
    assert _run(warm_python, tmp_path / "b", "bond") == 0
    assert (tmp_path / "a/output/model.safetensors").read_bytes() == (
        tmp_path / "b/output/model.safetensors"
    ).read_bytes()
