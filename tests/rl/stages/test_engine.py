"""DeepSpeed in one process gives the same numbers as plain torch and compiles no optimiser."""

import json
from pathlib import Path

import pytest

from tests.warm_python import WarmPython

ROOT = Path(__file__).parents[3]


def _losses(python: WarmPython, folder: Path, kind: str, zero: str) -> list[float]:
    folder.mkdir()
    program = [str(ROOT / "tests/rl/stages/killable.py"), folder.name, kind, "0", zero]
    done = python.run(program, cwd=folder.parent, TORCH_EXTENSIONS_DIR=str(folder.parent / "extensions"))
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_one_process_under_zero_2_learns_as_plain_torch_does(tmp_path: Path, warm_python: WarmPython) -> None:
    for kind in ("sft", "bond"):
        plain = _losses(warm_python, tmp_path / kind, kind, "")
        sharded = _losses(warm_python, tmp_path / f"{kind}-zero", kind, "2")
        assert len(plain) == 6
        assert sharded == pytest.approx(plain, rel=1e-3, abs=1e-3)
        assert (tmp_path / f"{kind}-zero/output/model.safetensors").exists()
    built = {path.stem for path in (tmp_path / "extensions").rglob("*.so")}
    assert built <= {"deepspeed_shm_comm"}  # built by DeepSpeed itself if there is a compiler; not an optimiser
