"""`gemsmith.merge`: the numbers that it writes, and what it refuses."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import gemsmith
from tests.messages import raises_facts

NAME = "model.layers.0.mlp.weight"


def folder_of(path: Path, values: list[float]) -> Path:
    path.mkdir()
    save_file({NAME: torch.tensor([values])}, path / "model.safetensors")
    (path / "config.json").write_text("{}")
    return path


def merged(folder: Path) -> list[float]:
    return load_file(folder / "model.safetensors")[NAME][0].tolist()


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    monkeypatch.chdir(tmp_path)
    start, a, b = (("start", [0.0, 0.0]), ("a", [2.0, 0.0]), ("b", [0.0, 2.0]))
    return folder_of(tmp_path / start[0], start[1]), folder_of(tmp_path / a[0], a[1]), folder_of(tmp_path / b[0], b[1])


def test_an_average_is_the_mean(folders: tuple[Path, Path, Path]):
    out = gemsmith.merge.average(folders, "out")
    assert out == Path("out")
    assert merged(out) == pytest.approx([(0 + 2 + 0) / 3, (0 + 0 + 2) / 3])


def test_slerp_goes_round_and_gives_its_angles(folders: tuple[Path, Path, Path]):
    start, *ends = folders
    (group,) = gemsmith.merge.slerp(start, ends, "out", group="tensor")
    assert merged(Path("out")) == pytest.approx([2**0.5, 2**0.5])  # half way on the circle of radius 2
    assert (group.group, group.angles, group.norms) == (NAME, (pytest.approx(90),), (2, 2))


def test_interpolation_replaces_a_checkpoint_only_when_it_is_told_to(folders: tuple[Path, Path, Path]):
    start, a, b = folders
    with raises_facts(gemsmith.UserError, b, "exists", "`out`", "overwrite=True"):
        gemsmith.merge.interpolate(start, a, 0.25, b)
    assert merged(b) == [0.0, 2.0]
    gemsmith.merge.interpolate(str(start), str(a), 0.25, str(b), overwrite=True)
    assert merged(b) == [0.75 * 0 + 0.25 * 2, 0.0]


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        (lambda: gemsmith.merge.average(["a"], "out"), ("folders", "1 checkpoint", "two")),
        (lambda: gemsmith.merge.average("a", "out"), ("folders", "'a'", "list")),
        (lambda: gemsmith.merge.average(["a", "gone"], "out"), ("gone", "nothing", "checkpoint")),
        (
            lambda: gemsmith.merge.slerp("start", ["a", "b"], "out", group="layers"),
            ("group", '"layers"', "layer", "tensor", "model"),
        ),
        (lambda: gemsmith.merge.average(["a", "b"], "a", overwrite=True), ("a", "checkpoints", "`out`")),
        (lambda: gemsmith.merge.average(["a", "b"], ".", overwrite=True), (".", "not a checkpoint", "overwrite=True")),
    ],
)
def test_what_would_lose_something_is_refused(
    folders: tuple[Path, Path, Path], call: Callable[[], object], facts: tuple[str, ...]
):
    with raises_facts(gemsmith.UserError, *facts) as caught:
        call()
    assert str(caught.value).startswith(f"{facts[0]}: ")
    assert [merged(folder) for folder in folders] == [[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]]
    assert not Path("out").exists()
