"""A worker's failure reaches the process that launched it, and nothing is left behind where none did."""

from pathlib import Path

import pytest

from gemsmith.recipes.run.failure_handoff import FOLDER_VARIABLE, hand_off_failure, read_failures


def test_the_launcher_reads_each_workers_message_and_exit_code_by_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    for rank, code in ((0, 1), (3, 2)):
        monkeypatch.setenv("RANK", str(rank))
        assert hand_off_failure(f"failure of {rank}", code)
    failures = read_failures(tmp_path)
    assert {rank: (failure["message"], failure["code"]) for rank, failure in failures.items()} == {
        0: ("failure of 0", 1),
        3: ("failure of 3", 2),
    }
    assert failures[0]["time"] <= failures[3]["time"]


@pytest.mark.parametrize("missing", [FOLDER_VARIABLE, "RANK"])
def test_without_a_launcher_of_ours_a_process_keeps_its_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv(missing)
    assert not hand_off_failure("failure", 1)
    assert list(tmp_path.iterdir()) == []
