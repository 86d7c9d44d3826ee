"""The results that a `Run` reads from its folder, and its messages about missing ones."""

from collections.abc import Callable

import pytest
import torch

import gemsmith
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy
from tests.messages import raises_facts
from tests.recipes.api.conftest import Example


def test_stages_are_records(example: Example):
    sft, aligned, scores = example.run.stages
    assert (sft.kind, sft.inputs, sft.output) == ("sft", (), sft.folder / "output")
    assert (aligned.kind, aligned.inputs) == ("reinforce", ("sft",))
    assert scores.inputs == ("sft",)
    assert sft.seconds > 0
    assert (sft.output / "config.json").is_file()
    assert example.run.name == "sums"


def test_metrics_are_rows(example: Example):
    rows = example.run.metrics("aligned")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(isinstance(row["reward"], float) for row in rows)
    assert example.run.metrics("scores") == []


def test_a_policy_is_the_trained_one(example: Example):
    policy = example.run.policy("sft")
    assert isinstance(policy, gemsmith.Policy) and not policy.model.training
    first = load_policy(PolicyConfig(model="tiny"))
    weights = policy.model.model.embed_tokens.weight
    assert weights.shape == first.model.model.embed_tokens.weight.shape
    assert not torch.equal(weights, first.model.model.embed_tokens.weight)
    last = example.run.policy()  # of the last finished stage with a policy
    assert not torch.equal(last.model.model.embed_tokens.weight, weights)
    aligned = load_policy(PolicyConfig(model=str(example.run.stage("aligned").output)))
    assert torch.equal(last.model.model.embed_tokens.weight, aligned.model.model.embed_tokens.weight)


def test_a_run_shows_its_stages(example: Example):
    first, *lines = repr(example.run).splitlines()
    assert first == f"Run('{example.run.folder}')"
    assert [line.split()[1:4] for line in lines] == [
        ["sft", "sft", "finished"],
        ["aligned", "reinforce", "finished"],
        ["scores", "evaluate", "finished"],
    ]


def test_the_report_can_be_written_again(example: Example):
    example.run.report.unlink()
    with raises_facts(gemsmith.UserError, "report.html", "write_report()"):
        example.run.report  # noqa: B018
    assert example.run.write_report() == example.run.report


@pytest.mark.parametrize(
    ("ask", "facts"),
    [
        (lambda run: run.stage("stf"), ('"stf"', "aligned", "scores", '"sft"')),
        (lambda run: run.metrics("warm"), ('"warm"', "sft", "aligned", "scores")),
        (lambda run: run.policy("algned"), ('"algned"', '"aligned"')),
        (lambda run: run.policy("scores"), ("stage scores", "policy", "sft")),
        (lambda run: run.policy("sft@half"), ('"sft@half"', "`id@rate`")),
        (
            lambda run: run.scores("sft"),
            ("stage sft (sft, finished)", "scores", "evaluation: scores"),
        ),
    ],
)
def test_what_is_not_there_is_said_with_what_is(
    example: Example, ask: Callable[[gemsmith.Run], object], facts: tuple[str, ...]
):
    with raises_facts(gemsmith.UserError, *facts):
        ask(example.run)
