"""A teacher in 8 or 4 bits with torchao, and the error without it."""

import importlib.util
import sys

import pytest
import torch

from gemsmith.contracts.errors import UserError
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.policy import Policy
from gemsmith.rl.teachers.quantised import quantise
from gemsmith.rl.teachers.teacher import TeacherRow
from tests.messages import raises_facts
from tests.rl.teachers.conftest import full_logprobs

with_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="torchao is not installed (pip install 'gemsmith[torchao]')"
)


def divergence(first: torch.Tensor, second: torch.Tensor) -> float:
    return (first.exp() * (first - second)).sum(-1).mean().item()


@with_torchao
def test_fewer_bits_are_further_from_the_teacher_and_the_embedding_stays_as_it_was(rows: list[TeacherRow]) -> None:
    policies: dict[str, Policy] = {name: tiny_policy("large", seed=2) for name in ("whole", "int8", "int4")}
    quantise(policies["int8"].model, "int8")
    quantise(policies["int4"].model, "int4")
    whole, int8, int4 = (full_logprobs(policy, rows) for policy in policies.values())
    assert 0 < divergence(whole, int8) < 0.01
    assert 4 * divergence(whole, int8) < divergence(whole, int4) < 1
    same = [policy.model.get_output_embeddings().weight for policy in policies.values()]
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])


def test_without_torchao_the_way_out_is_told(student: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with raises_facts(UserError, "quantise: int4", "torchao", "pip install 'gemsmith[torchao]'"):
        quantise(student.model, "int4")
