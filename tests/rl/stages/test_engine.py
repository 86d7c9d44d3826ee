"""The training engine under DeepSpeed: the same numbers as without it, in one process, with no optimiser compiled."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def _losses(folder: Path, kind: str, zero: str) -> list[float]:
    folder.mkdir()
    command = [sys.executable, str(ROOT / "tests/rl/stages/killable.py"), folder.name, kind, "0", zero]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["TORCH_EXTENSIONS_DIR"] = str(folder.parent / "extensions")
    done = subprocess.run(
        command, env=environment, timeout=300, cwd=folder.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_one_process_under_zero_2_learns_as_plain_torch_does(tmp_path: Path) -> None:
    for kind in ("sft", "bond"):
        plain, sharded = _losses(tmp_path / kind, kind, ""), _losses(tmp_path / f"{kind}-zero", kind, "2")
        assert len(plain) == 6
        assert sharded == pytest.approx(plain, rel=1e-3, abs=1e-3)
        assert (tmp_path / f"{kind}-zero/output/model.safetensors").exists()
    built = {path.stem for path in (tmp_path / "extensions").rglob("*.so")}
    assert built <= {"deepspeed_shm_comm"}  # DeepSpeed's own, where there is a compiler; no optimiser
