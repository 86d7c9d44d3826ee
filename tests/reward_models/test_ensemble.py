import json
import math
from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.reward_models.ensemble import Member, combine, kept_members
from tests.messages import raises_facts

MEMBERS = [[1.0, 4.0], [3.0, 4.0]]  # two members, two completions


def write_stage(folder: Path, kept: list[int]) -> Path:
    members = [{"member": member, "mean_reward": member / 2} for member in range(3)]
    for member in members:
        (folder / "members" / str(member["member"])).mkdir(parents=True)
    (folder / "output").mkdir()
    (folder / "output" / "warm.json").write_text(json.dumps({"members": members, "kept": kept}))
    return folder / "output"


def test_rewards_of_the_members_make_one():
    equal = [0.0, 0.0]
    assert combine(MEMBERS, equal, "mean") == [(1 + 3) / 2, 4.0]
    assert combine(MEMBERS, equal, "minimum") == [1.0, 4.0]
    assert combine(MEMBERS, equal, "lower_bound") == [2 - math.sqrt(((1 - 2) ** 2 + (3 - 2) ** 2) / 2), 4.0]
    assert combine(MEMBERS, equal, "lower_bound", deviations=3.0) == [2 - 3 * 1.0, 4.0]
    assert combine(MEMBERS, equal, "lower_bound", deviations=0.0) == combine(MEMBERS, equal, "mean")
    assert combine([[], []], equal, "minimum") == []


def test_an_offset_of_a_member_is_no_disagreement():
    shifted = [MEMBERS[0], [reward + 10.0 for reward in MEMBERS[0]]]  # the same rewards plus an offset of ten
    for how in ("mean", "minimum", "lower_bound"):
        assert combine(shifted, [2.5, 12.5], how) == [1.0 + 5.0, 4.0 + 5.0]


def test_the_kept_members_are_found_beside_the_output(tmp_path: Path):
    output = write_stage(tmp_path, kept=[2, 0])
    assert kept_members(output) == [Member(tmp_path / "members" / "2", 1.0), Member(tmp_path / "members" / "0", 0.0)]


def test_an_output_that_was_copied_has_no_members(tmp_path: Path):
    output = write_stage(tmp_path / "stage", kept=[2, 0])
    copy = output.rename(tmp_path / "copy")
    with raises_facts(UserError, "members/2 does not exist", "`serve: average`"):
        kept_members(copy)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"members": [{"member": 0}], "kept": [0]}'])
def test_other_folders_are_the_users_fault(tmp_path: Path, text: str):
    (tmp_path / "warm.json").write_text(text)
    with raises_facts(UserError, tmp_path / "warm.json", "averaged members"):
        kept_members(tmp_path)
    with raises_facts(UserError, "nothing/warm.json", "`serve: average`"):
        kept_members(tmp_path / "nothing")
