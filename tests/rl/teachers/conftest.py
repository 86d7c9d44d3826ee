"""Fixtures of the teacher tests: tiny policies and rows."""

from pathlib import Path

import pytest
import torch

from gemsmith.contracts.stage import Stage
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.policy import Policy
from gemsmith.rl.teachers.teacher import TeacherRow


@pytest.fixture
def student() -> Policy:
    return tiny_policy(seed=1)


@pytest.fixture
def rows() -> list[TeacherRow]:
    """Return three rows with 4, 2 and 3 completion tokens: two with a task, one without."""
    return [
        TeacherRow([2, 370, 371], [400, 401, 402, 106], 0, "sums"),
        TeacherRow([2, 372], [403, 106], 1, "code"),
        TeacherRow([2, 373, 374, 375], [404, 405, 106], 2, None),
    ]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage("s", tmp_path / "stage", 7, root=tmp_path)


def full_logprobs(policy: Policy, rows: list[TeacherRow], temperature: float = 1.0) -> torch.Tensor:
    """Return log-probabilities, [M, V], from the model's own logits, one sequence at a time."""
    parts = []
    for row in rows:
        with torch.no_grad():
            logits = policy.model(torch.tensor([[*row.prompt, *row.completion]])).logits[0]
        parts.append(logits[len(row.prompt) - 1 : -1].float() / temperature)
    return torch.cat(parts).log_softmax(-1)
