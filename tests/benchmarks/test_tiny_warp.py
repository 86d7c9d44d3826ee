"""The trial of WARP on tiny policies: its members and merges are those of the stage itself."""

import shutil
from pathlib import Path

import pytest

from benchmarks.fidelity.toys import tiny_warp, trajectory
from benchmarks.fidelity.toys.tiny_policies import policy_config
from benchmarks.fidelity.toys.trajectory import Point, Ruler
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.rl.stages.warp.stage import run as run_warp
from gemsmith.weights.merge import slerp
from tests.weights.checkpoint_difference import difference

pytestmark = pytest.mark.usefixtures("shallow_tiny")
SETTING = {**tiny_warp.SETTING, "prompts": 2, "steps": 3, "runs": 2, "kept": (2,), "asked": 4, "liti": 0.3}


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An initial policy that nobody trained."""
    folder = tmp_path / "start"
    save_policy(load_policy(policy_config("tiny"), seed=0), folder)
    monkeypatch.setattr(tiny_warp, "start_of", lambda setting, seed: folder)
    return folder


def test_members_and_iterations_are_those_of_the_stage(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "members"
    tiny_warp._train_members(made, SETTING, 0)
    assert difference(start, made / "run-0" / "kept" / "2").changed_tensors > 0
    assert difference(made / "run-0" / "kept" / "2", made / "run-0" / "final").changed_tensors > 0
    stage = tiny_warp.stage_in(tmp_path / "whole", SETTING, 0, Ruler(start, SETTING, 0))
    run_warp(tiny_warp.warp_config(SETTING, runs=2, iterations=2, liti=0.3), stage)
    monkeypatch.setattr(tiny_warp, "members", lambda setting, seed: made)
    first, second = tiny_warp.iterated(SETTING, 0, 2, tmp_path / "steps")
    slerp(start, [made / "run-0/final", made / "run-1/final"], tmp_path / "merge")
    assert difference(first, tmp_path / "merge").changed_tensors == 0
    assert difference(second, stage.folder / "iteration-1" / "merged").changed_tensors == 0


def test_a_line_begins_at_the_start_ends_at_its_end_and_leaves_nothing(start: Path, tmp_path: Path) -> None:
    end = tmp_path / "end"
    save_policy(load_policy(policy_config("tiny"), seed=1), end)
    ruler = Ruler(start, SETTING, 0)
    points = tiny_warp.line(ruler, start, end, tmp_path / "point", (0.0, 1.0))
    assert points[0].kl == pytest.approx(0.0, abs=1e-6) and points[0].reward == pytest.approx(0.0, abs=1e-9)
    assert points[1] == tiny_warp.point_of(ruler, end, 100) and points[1].kl > 1
    assert not (tmp_path / "point").exists()
    shutil.copytree(start, tmp_path / "same")
    assert tiny_warp.angle_of_weights([start, tmp_path / "same"]) == pytest.approx(0.0, abs=1e-4)
    assert 60 < tiny_warp.angle_of_weights([start, end]) < 120


def test_no_policy_is_measured_on_prompts_that_it_learns_from() -> None:
    setting = {**trajectory.SETTING}
    asked, learnt = trajectory.asked(setting, 0), trajectory.learnt(setting, 0)
    assert len(asked) == 128 and len(learnt) > 1_800 and not set(asked) & set(learnt)


def test_a_mean_curve_is_of_points_at_the_same_rate() -> None:
    lines = [
        [Point(50, 1.0, 2.0, 8.0), Point(100, 3.0, 6.0, 8.0)],
        [Point(50, 2.0, 4.0, 8.0), Point(100, 5.0, 8.0, 8.0)],
    ]
    assert tiny_warp.mean_curve(lines) == [(3.0, 1.5), (7.0, 4.0)]
