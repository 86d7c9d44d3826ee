"""`gemsmith merge`, as a process: what it writes and says, what it refuses, and what it imports."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

NAME = "model.layers.0.mlp.weight"


def folder_of(path: Path, values: list[float]) -> Path:
    path.mkdir()
    save_file({NAME: torch.tensor([values]), "norm": torch.ones(2)}, path / "model.safetensors")
    (path / "config.json").write_text("{}")
    return path


def gemsmith(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gemsmith", "merge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def merged(folder: Path) -> list[float]:
    return load_file(folder / "model.safetensors")[NAME][0].tolist()


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [
        folder_of(tmp_path / name, values)
        for name, values in (("start", [0.0, 0.0]), ("a", [2.0, 0.0]), ("b", [0.0, 2.0]))
    ]


def test_average_writes_the_mean_and_the_first_folders_files(folders: list[Path], tmp_path: Path):
    done = gemsmith("average", *folders, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert merged(tmp_path / "out") == pytest.approx([(0 + 2 + 0) / 3, (0 + 0 + 2) / 3])
    assert (tmp_path / "out" / "config.json").read_text() == "{}"
    size = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert "average of 3" in done.stdout and f"({size:,} bytes in " in done.stdout


def test_slerp_says_the_angles_of_its_groups(folders: list[Path], tmp_path: Path):
    done = gemsmith("slerp", *folders, "--out", tmp_path / "out", "--group", "tensor")
    assert done.returncode == 0, done.stderr
    assert merged(tmp_path / "out") == pytest.approx([2**0.5, 2**0.5])  # half way on the circle of radius 2
    assert f"  {NAME}: 90.00°; norms 2, 2 -> 2" in done.stdout
    assert "  norm: no angle (weights did not change)" in done.stdout


def test_interpolation_replaces_what_stands_there_only_by_force(folders: list[Path], tmp_path: Path):
    command = ["interpolate", *folders[:2], "--rate", 0.25, "--out", tmp_path / "b"]
    refused = gemsmith(*command)
    assert refused.returncode == 2 and "exists" in refused.stderr and "--force" in refused.stderr
    assert merged(tmp_path / "b") == [0.0, 2.0]
    done = gemsmith(*command, "--force")
    assert done.returncode == 0, done.stderr
    assert merged(tmp_path / "b") == [0.75 * 0 + 0.25 * 2, 0.0]


def test_what_cannot_be_merged_is_refused_with_a_sentence(folders: list[Path], tmp_path: Path):
    other = folder_of(tmp_path / "other", [1.0, 2.0, 3.0])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("kept")
    for arguments, expected in (
        (["average", folders[0], other, "--out", tmp_path / "out"], f"tensor {NAME} is [1, 2]"),
        (["average", folders[0], tmp_path / "gone", "--out", tmp_path / "out"], "gone: found nothing"),
        (["average", folders[0], "--out", tmp_path / "out"], "expected at least two"),
        (["average", *folders, "--out", folders[1], "--force"], "is one of the checkpoints"),
        (["average", *folders, "--out", tmp_path, "--force"], "not a checkpoint folder"),
        (["average", *folders, "--out", tmp_path / "mine", "--force"], "not a checkpoint folder"),
    ):
        done = gemsmith(*arguments)
        assert done.returncode == 2 and expected in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists() and (tmp_path / "mine" / "letter.txt").exists()


def test_merging_imports_no_torch():
    code = "import sys, gemsmith.recipes.commands.cli, gemsmith.weights.merge; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"
