"""A store gives the targets of the teacher that wrote it, and a store that does not match the stage is rejected."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import PythonData
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.head.vocabulary_head import Targets, weighted_sum
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.policy import Policy
from gemsmith.rl.distillation.sampled_logits import draw_targets
from gemsmith.rl.stages.sft.stage import fitting_demonstrations
from gemsmith.rl.stages.teacher_cache.config import TeacherCacheStage
from gemsmith.rl.stages.teacher_cache.stage import run
from gemsmith.rl.teachers.config import TaughtConfig
from gemsmith.rl.teachers.opening import open_teacher
from gemsmith.rl.teachers.store import StoreTeacher
from gemsmith.rl.teachers.teacher import TeacherRow
from tests.messages import raises_facts
from tests.rl.teachers.conftest import full_logprobs

K = 24
ROWS = (
    "def rows(seed):\n    return [{'prompt': f'{n} + {n} =', 'said': 'x' * (n % 5) + str(2 * n)} for n in range(12)]\n"
)


def taught(**more: Any) -> TaughtConfig:
    return TaughtConfig.model_validate({"sampled_logits": K, **more})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Return the stage that wrote a store with the settings of `cached`."""
    root = tmp_path_factory.mktemp("written")
    stage = Stage("s", root / "stage", 7, root=root)
    cached(stage)
    return stage


def cached(stage: Stage, **more: Any) -> Path:
    """Return the stage that wrote a store of `tiny` (large) with twelve rows."""
    (stage.root / "rows.py").write_text(ROWS)
    stage.data = {"d": PythonData(source="python", target="rows.py:rows", demonstration="{said}", holdout=0)}
    fields = {"id": "s", "kind": "teacher_cache", "policy": PolicyConfig(model="tiny"), "data": "d", "batch": 5}
    fields |= {"teacher": {"model": "tiny", "size": "large"}, "sampled_logits": K, "max_length": 64}
    stage.folder.mkdir(exist_ok=True)
    run(TeacherCacheStage.model_validate({**fields, **more}), stage)
    return stage.output


def demonstrations(stage: Stage, student: Policy) -> list[TeacherRow]:
    from gemsmith.curation.load import load_data

    examples = load_data(stage.data["d"], name="d", seed=stage.seed, root=stage.root).train
    shown = fitting_demonstrations(examples, student, 64, "d", stage)
    return [TeacherRow(prompt, completion, number) for number, (_, prompt, completion) in enumerate(shown)]


@pytest.mark.parametrize("mode", ["gumbel_renorm", "multinomial_counts", "topk"])
def test_the_store_holds_the_teachers_probabilities_of_what_was_drawn(mode: str, stage: Stage, student: Policy) -> None:
    folder = cached(stage, mode=mode, temperature=0.5)
    config = taught(teacher={"store": str(folder)}, mode=mode, temperature=0.5)
    rows = demonstrations(stage, student)
    teacher = open_teacher(config, student, stage, rows)
    asked = [rows[7], rows[2]]
    targets = teacher.targets(asked, [])
    size = sum(len(row.completion) for row in asked)
    ids, weights = targets.choose(slice(0, size), torch.zeros(size, 512))
    large = load_policy(PolicyConfig(model="tiny", size="large"), seed=stage.seed)
    whole_MV = full_logprobs(large, asked, 0.5)
    truth = whole_MV.gather(-1, ids)
    assert torch.allclose(weights.sum(-1), torch.ones(size))
    assert torch.allclose(
        targets.logprobs_MK[weights > 0], truth[weights > 0], atol=0.01
    )  # the resolution of float16 near -10
    if mode == "multinomial_counts":
        assert torch.equal((weights * K).round(), (weights * K).round(decimals=3))
        assert ((weights > 0).sum(-1) < K).any()  # some entries were sampled twice
    else:
        expected = truth.softmax(-1)
        assert torch.allclose(weights, expected, rtol=0.02)
        assert all(len(set(row)) == K for row in ids.tolist())
    if mode == "topk":
        assert torch.equal(ids.sort().values, draw_targets(whole_MV, K, "topk")[0].sort().values)
        assert targets.best_M.tolist() == whole_MV.argmax(-1).tolist()
    own = torch.tensor([token for row in asked for token in row.completion])
    known = ~targets.own_M.isnan()
    assert torch.allclose(targets.own_M[known], whole_MV.gather(-1, own[:, None])[:, 0][known], atol=0.01)
    assert teacher.targets(asked, [1] * size).ids_MK.tolist() == targets.ids_MK.tolist()  # the seeds change nothing


def test_the_estimate_of_the_divergence_is_nought_for_the_teacher_itself_and_right_on_average() -> None:
    from gemsmith.rl.teachers.sparse import SparseTargets

    torch.manual_seed(0)
    whole_V, student_V = torch.randn(40).log_softmax(-1), torch.randn(40).log_softmax(-1)
    whole_TV, student_TV = whole_V.expand(4000, -1), student_V.expand(4000, -1)
    ids, weights = draw_targets(whole_TV, 16, "multinomial_counts")
    targets = SparseTargets(ids, whole_TV.gather(-1, ids), weights, torch.zeros(4000))
    eye, ones = torch.eye(40), torch.ones(4000)
    _, same = weighted_sum(whole_TV, eye, Targets(targets.choose), ones)
    assert targets.divergence(same).abs().max() < 1e-5
    _, other = weighted_sum(student_TV, eye, Targets(targets.choose), ones)
    truth = (whole_V.exp() * (whole_V - student_V)).sum()
    assert targets.divergence(other).mean() == pytest.approx(truth.item(), rel=0.02)


def test_the_likeliest_entry_is_told_only_where_what_was_left_out_has_less() -> None:
    from gemsmith.rl.teachers.sparse import SparseTargets

    ids, probabilities = (
        torch.tensor([[5, 6], [5, 6]]),
        torch.tensor([[0.5, 0.2], [0.3, 0.2]]),
    )  # the rest have 0.3 and 0.5
    targets = SparseTargets(ids, probabilities.log(), torch.full((2, 2), 0.5), torch.zeros(2))
    assert targets.best_M.tolist() == [5, -1]


def test_rows_that_the_student_alone_has_are_refused_before_anything_trains(written: Stage, student: Policy) -> None:
    config = taught(teacher={"store": str(written.output)})
    rows = demonstrations(written, student)
    assert isinstance(
        open_teacher(config, student, written, rows[3:]), StoreTeacher
    )  # a subset of the rows is accepted
    with raises_facts(UserError, "1 of 12", written.output, "number 0", "seed"):
        open_teacher(config, student, written, [*rows[1:], TeacherRow(rows[0].prompt, [300, 106], 0)])
    with raises_facts(UserError, "max_length 64", "70 tokens", "lower max_length"):
        open_teacher(config, student, written, [*rows, TeacherRow([2] * 30, [300] * 40, 12)])


@pytest.mark.parametrize(
    ("more", "facts"),
    [
        ({"temperature": 2.0}, ["temperature 1.0", "2.0"]),
        ({"mode": "topk"}, ["mode multinomial_counts", "topk"]),
        ({"sampled_logits": 8}, ["sampled_logits 24", 8]),
        ({"sampled_logits": 513}, ["sampled_logits", 513, 512]),
    ],
)
def test_a_store_that_was_drawn_otherwise_is_refused(
    more: dict[str, Any], facts: list[Any], written: Stage, student: Policy
) -> None:
    folder = written.output
    with raises_facts(UserError, *facts):
        open_teacher(taught(teacher={"store": str(folder)}, **more), student, written, [])
    fewer = TaughtConfig.model_validate({"teacher": {"store": str(folder)}})
    assert open_teacher(fewer, student, written, []).k == K  # a stage without sampled_logits uses the store's K


def test_a_stage_without_a_mode_reads_a_store_in_its_own(stage: Stage, student: Policy) -> None:
    folder = cached(stage, mode="gumbel_renorm")  # the default of earlier versions
    assert open_teacher(taught(teacher={"store": str(folder)}), student, stage, []).mode == "gumbel_renorm"
    both = [{"teacher": {"store": str(folder)}, "tasks": ["sums"]}, {"teacher": {"model": "tiny"}}]
    assert open_teacher(taught(teachers=both), student, stage, []).mode == "gumbel_renorm"
    with raises_facts(UserError, "mode gumbel_renorm", "multinomial_counts"):
        open_teacher(taught(teacher={"store": str(folder)}, mode="multinomial_counts"), student, stage, [])


def test_a_store_of_another_teacher_or_tokenizer_is_refused(written: Stage, student: Policy) -> None:
    folder = str(written.output)
    of_this = {"store": folder, "model": "tiny", "size": "large"}
    assert open_teacher(taught(teacher=of_this), student, written, []).k == K
    with pytest.raises(UserError, match=r"tiny \([0-9a-f]{12}\).*tiny \([0-9a-f]{12}\)"):
        open_teacher(taught(teacher={**of_this, "size": "small"}), student, written, [])
    student.tokenizer.add_tokens(["<new>"])
    with raises_facts(UserError, folder, "tokenizer", "student"):
        open_teacher(taught(teacher={"store": folder}), student, written, [])


def test_a_store_that_is_not_there_says_how_one_is_written(written: Stage, student: Policy) -> None:
    with raises_facts(UserError, "teacher.store", "nowhere", "gemsmith teacher-cache RECIPE STAGE"):
        open_teacher(taught(teacher={"store": "nowhere"}), student, written, [])


def test_a_damaged_output_of_a_stage_names_the_command_that_writes_it_again(
    written: Stage, student: Policy, tmp_path: Path
) -> None:
    folder = shutil.copytree(written.output, tmp_path / "output")
    shard = folder / "targets-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-3])
    stage = replace(written, inputs={"targets": folder})
    with raises_facts(UserError, "targets-00000.bin", "--only targets --fresh"):
        open_teacher(taught(teacher={"from": "targets"}), student, stage, [])
