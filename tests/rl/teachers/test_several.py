"""Teachers by task and ensembles, compared with the models' own logits."""

import pytest
import torch

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.policy.head import tiled_matmul
from gemsmith.policy.head.vocabulary_head import Targets, weighted_sum
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.policy import Policy
from gemsmith.rl.teachers.config import TaughtConfig
from gemsmith.rl.teachers.in_process import InProcessTeacher
from gemsmith.rl.teachers.opening import open_teacher
from gemsmith.rl.teachers.several import Ensemble, TeachersByTask, same_draws
from gemsmith.rl.teachers.sparse import SparseTargets
from gemsmith.rl.teachers.teacher import TeacherRow
from tests.messages import assert_facts, raises_facts
from tests.rl.teachers.conftest import full_logprobs

V = 512


@pytest.fixture
def others() -> list[Policy]:
    return [tiny_policy(seed=2), tiny_policy(seed=3)]


def of(policy: Policy, k: int = V) -> InProcessTeacher:
    return InProcessTeacher(policy.model, k, "gumbel_renorm")


def seeds(rows: list[TeacherRow]) -> list[int]:
    return list(range(sum(len(row.completion) for row in rows)))


def test_an_ensemble_is_the_weighted_mean_of_probabilities(others: list[Policy], rows: list[TeacherRow]) -> None:
    ensemble = Ensemble([of(one) for one in others], [3.0, 1.0])
    found = ensemble.targets(rows, seeds(rows)).logprobs(slice(0, 9))
    first, second = (full_logprobs(one, rows).exp() for one in others)
    assert torch.allclose(found.exp(), 0.75 * first + 0.25 * second, atol=1e-6)
    assert torch.allclose(found.logsumexp(-1), torch.zeros(9), atol=1e-5)


def test_each_rows_targets_are_those_of_its_tasks_teacher(
    others: list[Policy], rows: list[TeacherRow], student: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled_matmul, "CHUNK", 2 * V)  # 9 tokens in chunks of 2, which span rows and teachers
    teacher = TeachersByTask({"code": of(others[1])}, of(others[0]))
    targets = teacher.targets(rows, seeds(rows))
    truth_MV = full_logprobs(others[0], rows)
    truth_MV[4:6] = full_logprobs(others[1], [rows[1]])
    student_MV = full_logprobs(student, rows)
    _, scores = weighted_sum(student_MV, torch.eye(V), Targets(targets.choose), torch.ones(9))
    assert torch.allclose(targets.divergence(scores), (truth_MV.exp() * (truth_MV - student_MV)).sum(-1), atol=1e-4)
    assert torch.allclose(scores.logprobs, (truth_MV.exp() * student_MV).sum(-1), atol=1e-4)  # K is the vocabulary size
    assert targets.best_M.tolist() == truth_MV.argmax(-1).tolist()
    own = torch.tensor([token for row in rows for token in row.completion])
    assert torch.allclose(targets.own_M, truth_MV.gather(-1, own[:, None])[:, 0], atol=1e-5)
    again = teacher.targets(rows, seeds(rows))
    assert torch.allclose(again.logprobs(slice(3, 7)), truth_MV[3:7], atol=1e-4)


def test_a_teacher_draws_for_its_rows_what_it_would_draw_alone(others: list[Policy], rows: list[TeacherRow]) -> None:
    both = TeachersByTask({"code": of(others[1], 16)}, of(others[0], 16)).targets(rows, seeds(rows))
    alone = of(others[1], 16).targets([rows[1]], seeds(rows)[4:6])
    nothing = torch.zeros(9, V)
    assert both.choose(slice(0, 9), nothing)[0][4:6].tolist() == alone.choose(slice(0, 2), nothing[:2])[0].tolist()


def test_narrower_targets_beside_wider_ones_weigh_nothing_where_they_are_filled_up(
    others: list[Policy], rows: list[TeacherRow]
) -> None:
    class Two:
        k, mode, exact, on_policy = 2, "gumbel_renorm", False, False

        def targets(self, asked: list[TeacherRow], seeds: list[int]) -> SparseTargets:
            size = sum(len(row.completion) for row in asked)
            half = torch.full((size, 2), 0.5)
            return SparseTargets(torch.tensor([[7, 8]] * size), half.log(), half, torch.zeros(size))

        def close(self) -> None: ...

    mixed = TeachersByTask({"code": Two()}, of(others[0], 4))
    assert not mixed.exact and not mixed.on_policy
    ids, weights = mixed.targets(rows, seeds(rows)).choose(slice(3, 6), torch.zeros(3, V))
    assert ids.shape == (3, 4) and weights[1:].tolist() == [[0.5, 0.5, 0, 0]] * 2
    assert torch.allclose(weights.sum(-1), torch.ones(3))


def test_a_task_that_nobody_answers_for_is_refused_at_opening(
    rows: list[TeacherRow], student: Policy, stage: Stage
) -> None:
    tiny = {"model": "tiny"}
    shares = [{"teacher": tiny, "tasks": ["sums"]}, {"teacher": {**tiny, "size": "large"}, "tasks": ["sums", "code"]}]
    config = TaughtConfig.model_validate({"teachers": shares, "sampled_logits": 8})
    teacher = open_teacher(config, student, stage, rows[:2])
    assert isinstance(teacher, TeachersByTask) and isinstance(teacher.by_task["sums"], Ensemble)
    assert isinstance(teacher.by_task["code"], InProcessTeacher)
    with raises_facts(UserError, "`teachers`", "without a task", "code, sums", "`tasks`"):
        open_teacher(config, student, stage, rows)


def test_a_task_that_no_row_has_is_told_and_refused_where_it_is_nearly_one(
    rows: list[TeacherRow], others: list[Policy]
) -> None:
    said: list[str] = []
    teachers = TeachersByTask({"sums": of(others[0], 8), "verse": of(others[1], 8)}, of(others[1], 8))
    teachers.check_tasks(rows, said.append)
    assert len(said) == 1
    assert_facts(said[0], "`teachers`", '"verse"', "code, sums")
    with raises_facts(UserError, "`teachers`", '"cod"', "code, sums", 'did you mean "code"'):
        TeachersByTask({"cod": of(others[0], 8)}, of(others[1], 8)).check_tasks(rows, said.append)


def test_teachers_draw_alike(others: list[Policy]) -> None:
    with raises_facts(UserError, "8 entries", "16 entries", "sampled_logits"):
        same_draws([of(others[0], 8), of(others[1], 16)])
