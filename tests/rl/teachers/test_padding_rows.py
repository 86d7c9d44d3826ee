"""Teachers and students of one tokenizer whose embeddings differ in length, as Gemma 3's 4B and 1B do."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import PythonData
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.head.logprobs import weighted_logprobs
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.policy import Policy
from gemsmith.recipes.commands.cli import app
from gemsmith.rl.distillation.divergence import SampledDivergence, WholeDivergence
from gemsmith.rl.stages.distill.config import DistillStage
from gemsmith.rl.stages.distill.stage import run
from gemsmith.rl.stages.teacher_cache.config import TeacherCacheStage
from gemsmith.rl.stages.teacher_cache.stage import run as run_cache
from gemsmith.rl.teachers.config import TaughtConfig
from gemsmith.rl.teachers.in_process import InProcessTeacher
from gemsmith.rl.teachers.opening import open_teacher
from gemsmith.rl.teachers.server import ServerTeacher
from gemsmith.rl.teachers.sparse import used_entries
from gemsmith.rl.teachers.store import StoreTeacher
from gemsmith.rl.teachers.teacher import TeacherRow
from tests.messages import raises_facts
from tests.policy.text.test_vocabulary import resized
from tests.rl.teachers.conftest import full_logprobs
from tests.rl.teachers.test_server import computing, server

K = 24
ROWS = "def rows(seed):\n    return [{'prompt': f'{n} + {n} =', 'said': str(2 * n)} for n in range(8)]\n"


def wide(size: Any = "large", seed: int = 7) -> Policy:
    return resized(tiny_policy(size, seed), 576)


def restricted(policy: Policy, rows: list[TeacherRow]) -> torch.Tensor:
    """Return the policy's distribution over the 512 rows that are entries: its logits cut before the softmax."""
    return full_logprobs(policy, rows)[:, :512].log_softmax(-1)


def opened(teachers: list[Any], student: Policy, stage: Stage, rows: list[TeacherRow], **fields: Any) -> Any:
    shares = [{"teacher": teacher} for teacher in teachers]
    return open_teacher(
        TaughtConfig.model_validate({"teachers": shares, "sampled_logits": K, **fields}), student, stage, rows
    )


@pytest.fixture
def folders(stage: Stage) -> Stage:
    """Save a teacher of 576 rows as `wide` and one of 512 rows as `plain`."""
    save_policy(wide(), stage.root / "wide")
    save_policy(tiny_policy("small", 5), stage.root / "plain")
    save_policy(resized(tiny_policy("small", 5), 400), stage.root / "short")
    return stage


@pytest.mark.parametrize("student_rows", [512, 576])
@pytest.mark.parametrize("mode", ["gumbel_renorm", "multinomial_counts", "topk"])
def test_a_teachers_padding_is_cut_before_its_softmax(
    mode: str, student_rows: int, folders: Stage, rows: list[TeacherRow]
) -> None:
    student = resized(tiny_policy(seed=1), student_rows) if student_rows > 512 else tiny_policy(seed=1)
    truth_MV = restricted(wide(), rows)
    assert (full_logprobs(wide(), rows)[:, 512:].exp().sum(-1) > 0.1).any()  # else the test could not fail
    teacher = opened([{"model": "wide"}], student, folders, rows, mode=mode)
    size = len(truth_MV)
    assert torch.allclose(teacher.targets(rows, range(size)).logprobs(slice(0, size)), truth_MV, atol=1e-4)
    targets = teacher.targets(rows, range(size))
    lowered = SampledDivergence(targets)
    prompts, completions = [row.prompt for row in rows], [row.completion for row in rows]
    _, scores = weighted_logprobs(student.model, prompts, completions, torch.ones(len(rows)), lowered.objective)
    student_MV = full_logprobs(student, rows)[:, :512]  # of the student's whole softmax, which it samples from
    expected_M = (truth_MV.exp() * (truth_MV - student_MV)).sum(-1)
    assert torch.allclose(lowered.watched(scores).kl_M, expected_M, atol=1e-3)
    ids_MK, _ = teacher.targets(rows, range(size)).choose(slice(0, size), student_MV)
    assert int(ids_MK.max()) < 512


@pytest.mark.parametrize("divergence", ["reverse", "jsd"])
def test_a_students_padding_has_no_part_in_a_divergence_over_the_whole_vocabulary(
    divergence: Any, rows: list[TeacherRow]
) -> None:
    student, plain = wide("small", 1), wide("small", 1)
    plain.model.resize_token_embeddings(512)
    teacher = InProcessTeacher(tiny_policy(seed=2).model, K, "topk", 1.0, 512)
    prompts, completions = [row.prompt for row in rows], [row.completion for row in rows]
    found = []
    for policy in (student, plain):
        objective = WholeDivergence(teacher.targets(rows, []), divergence, 0.5).objective
        total, _ = weighted_logprobs(policy.model, prompts, completions, torch.ones(len(rows)), objective)
        total.backward()
        found.append((total.detach(), policy.model.model.embed_tokens.weight.grad))
    assert found[0][0].isfinite()
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-4)
    assert torch.allclose(found[0][1][:512], found[1][1], atol=1e-4)
    assert not found[0][1][512:].any()


def test_teachers_of_both_lengths_share_an_ensemble_and_a_batch(folders: Stage, rows: list[TeacherRow]) -> None:
    student = wide("small", 1)
    both = opened([{"model": "wide"}, {"model": "plain"}], student, folders, rows)
    size = sum(len(row.completion) for row in rows)
    one, two = restricted(wide(), rows).exp(), restricted(tiny_policy("small", 5), rows).exp()
    mean = both.targets(rows, range(size)).logprobs(slice(0, size)).exp()
    assert torch.allclose(mean, (one + two) / 2, atol=1e-4)
    config = {
        "teachers": [{"teacher": {"model": "wide"}, "tasks": ["sums"]}, {"teacher": {"model": "plain"}}],
        "sampled_logits": K,
    }
    by_task = open_teacher(TaughtConfig.model_validate(config), student, folders, rows)
    joined = by_task.targets(rows, range(size)).logprobs(slice(0, size)).exp()
    assert torch.allclose(joined, torch.cat([one[:4], two[4:]]), atol=1e-4)


def test_a_teacher_without_rows_for_entries_of_text_is_refused(folders: Stage, rows: list[TeacherRow]) -> None:
    with raises_facts(UserError, "teacher short", "400", "512"):
        opened([{"model": "short"}], tiny_policy(), folders, rows)


def test_a_sample_of_a_students_padding_is_scored_as_unknown(folders: Stage) -> None:
    row = TeacherRow([2, 370], [575, 401])
    teacher = opened([{"model": "plain"}], wide("small", 1), folders, [row])
    targets = teacher.targets([row], [0, 1])
    targets.logprobs(slice(0, 2))
    assert targets.own_M.isnan().tolist() == [True, False]


def test_entries_of_padding_are_cut_from_k_entries_and_the_rest_is_renormalised() -> None:
    ids = torch.tensor([[600, 3, 5], [1, 2, 1]])
    logprobs = torch.tensor([[0.5, 0.2, 0.1], [0.5, 0.3, 0.5]]).log()
    weights = torch.tensor([[0.5, 0.25, 0.25], [0.6, 0.4, 0.0]])
    cut_ids, cut_logprobs, cut_weights = used_entries(ids, logprobs, weights, 512)
    assert cut_ids.tolist() == [[3, 5, 3], [1, 2, 1]]
    assert torch.allclose(cut_weights, torch.tensor([[0.5, 0.5, 0.0], [0.6, 0.4, 0.0]]))
    assert torch.allclose(cut_logprobs[0, :2].exp(), torch.tensor([0.2 / 0.5, 0.1 / 0.5]))
    assert cut_logprobs[0, 2].exp() == 0
    assert math.isfinite(cut_logprobs[0, 2])
    assert used_entries(ids, logprobs, weights, 601)[0] is ids
    with raises_facts(UserError, "padding", 512):
        used_entries(torch.tensor([[600]]), torch.zeros(1, 1), torch.ones(1, 1), 512)


def test_a_servers_padding_is_cut_too(student: Policy, stage: Stage, rows: list[TeacherRow]) -> None:
    teacher = wide()
    with torch.no_grad():
        teacher.model.get_input_embeddings().weight[512:] *= 0.17  # likely, but not the most likely
    truth_MV = full_logprobs(teacher, rows)
    listed = truth_MV.topk(K).indices
    assert (listed >= 512).any()
    assert not (listed[:, 0] >= 512).any()
    with server(computing(teacher)) as url:
        asked = ServerTeacher(url, None, K, 512, 60, student.device, stage.say)
        targets = asked.targets(rows, [])
        asked.close()
    kept = targets.weights_MK > 0
    assert int(targets.ids_MK.max()) < 512
    assert torch.equal(kept.sum(-1), (listed < 512).sum(-1))
    whole = truth_MV.gather(-1, targets.ids_MK).where(kept, -math.inf)
    assert torch.allclose(targets.weights_MK, whole.softmax(-1), atol=1e-5)


def test_a_store_serves_students_of_both_lengths(folders: Stage) -> None:
    stage, counts = folders, {}
    (stage.root / "rows.py").write_text(ROWS)
    stage.data = {"d": PythonData(source="python", target="rows.py:rows", demonstration="{said}", holdout=0)}
    save_policy(wide("small", 5), stage.root / "student")
    fields = {"id": "s", "kind": "teacher_cache", "data": "d", "max_length": 64, "sampled_logits": K}
    config = TeacherCacheStage.model_validate({**fields, "policy": {"model": "student"}, "teacher": {"model": "wide"}})
    stage.folder.mkdir()
    run_cache(config, stage)
    for name in ("student", "plain"):
        student = load_policy(PolicyConfig(model=name), root=stage.root)
        teacher = opened([{"store": str(stage.output)}], student, stage, [])
        assert isinstance(teacher, StoreTeacher)
        counts[name] = teacher.used
    assert counts == {"student": 512, "plain": 512}


def test_the_run_trains_from_a_teacher_with_more_rows_and_validate_says_so(folders: Stage) -> None:
    stage = folders
    (stage.root / "rows.py").write_text(ROWS)
    stage.data = {"d": PythonData(source="python", target="rows.py:rows", demonstration="{said}", holdout=0)}
    said: list[str] = []
    stage.sink = type("Sink", (), {"say": lambda _, text: said.append(text), "progress": lambda *_: None})()
    fields = {"id": "s", "kind": "distill", "data": "d", "steps": 2, "batch": 2, "learning_rate": 1e-3}
    fields |= {"policy": {"model": "plain"}, "teacher": {"model": "wide"}, "max_length": 64, "on_policy": 0.5}
    fields |= {"sampling": {"max_tokens": 4}}
    run(DistillStage.model_validate(fields), stage)
    assert any("576 rows, 512 used" in text for text in said)
    logged = [json.loads(line) for line in stage.metrics_file.read_text().splitlines()]
    assert all(math.isfinite(line["kl_from_teacher"]) for line in logged if "kl_from_teacher" in line)


@pytest.mark.parametrize(
    ("student", "teacher", "remark"),
    [
        ("google/gemma-3-1b-pt", "google/gemma-3-4b-it", "google/gemma-3-4b-it: 262,208 rows, 262,144 used"),
        ("google/gemma-3-4b-pt", "google/gemma-3-27b-it", None),
        ("google/gemma-3-4b-pt", "google/gemma-3-1b-it", None),
    ],
)
def test_validate_tells_the_rows_of_released_models(
    student: str, teacher: str, remark: str | None, tmp_path: Path
) -> None:
    (tmp_path / "rows.py").write_text(ROWS)
    (tmp_path / "r.yaml").write_text(
        f"name: r\npolicy: {{model: {student}}}\n"
        "data: {d: {source: python, target: 'rows.py:rows', demonstration: '{said}'}}\n"
        f"stages: [{{id: it, kind: distill, data: d, teacher: {{model: {teacher}}}, steps: 1, batch: 2, "
        "learning_rate: 1.0e-3}]\n"
    )
    printed = CliRunner().invoke(app, ["validate", str(tmp_path / "r.yaml")])
    assert printed.exit_code == 0
    assert "valid, 1 stage: it" in printed.output
    assert (" used" not in printed.output) if remark is None else (f"  it: teacher {remark}" in printed.output)
