"""Taking a policy out of a run: to export it, and to talk with it."""

import json
from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.commands.actions.policy_export import export_policy
from gemsmith.recipes.commands.chat import converse
from gemsmith.recipes.run.trained import find_policy
from tests.messages import assert_facts, raises_facts
from tests.warm_python import WarmPython


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> Path:
    """The run of a two-step SFT, made by the command."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = folder / "small.yaml"
    recipe.write_text(
        "name: small\npolicy: {model: tiny}\n"
        "data:\n  sums: {source: reasoning_gym, task: chain_sum, size: 60, synthesise: {}}\n"
        "stages:\n  - {id: sft, kind: sft, data: sums, steps: 2, batch: 4, learning_rate: 1e-3}\n"
        "  - {id: more, kind: sft, policy: {from: sft}, data: sums, steps: 2, batch: 4, learning_rate: 1e-3}\n"
    )
    done = warm_python.run(["-m", "gemsmith", "run", str(recipe), "--out", str(folder / "run")])
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_the_last_policy_is_taken_and_its_base_is_what_it_was_trained_from(run: Path):
    found = find_policy(run)
    assert found.stage == "more"
    assert found.base == find_policy(run, "sft").folder


def test_a_stage_that_is_not_there_is_told_with_the_nearest(run: Path):
    with raises_facts(UserError, run, "stage stf", "more", '"sft"'):
        find_policy(run, "stf")


def test_an_export_stands_where_it_was_asked_for_and_leaves_nothing_else(run: Path, tmp_path: Path):
    export_policy(run, "more", tmp_path / "taken")
    assert json.loads((tmp_path / "taken" / "config.json").read_text())["architectures"] == ["Gemma3ForCausalLM"]
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    with raises_facts(UserError, f"--to {tmp_path / 'taken'}", "empty folder"):
        export_policy(run, "more", tmp_path / "taken")


def test_the_command_writes_a_gguf_file_and_refuses_what_it_does_not_know(run: Path, tmp_path: Path):
    export_policy(run, "more", tmp_path / "taken", gguf="q4_0")
    names = {path.name for path in (tmp_path / "taken").iterdir()}
    assert "small-more-q4_0.gguf" in names
    assert "model.safetensors" not in names
    for fields, facts in [
        ({"formats": ["ggfu"]}, ("--format ggfu", "transformers", "adapter", '"gguf"')),
        ({"gguf": "q5"}, ("--gguf q5", "f16", "q8_0", "q4_0")),
        ({"formats": ["adapter"], "gguf": "q4_0"}, ("--gguf q4_0", "adapter", "--format gguf")),
        ({"formats": ["adapter"]}, ("policy", "adapter")),
    ]:
        with raises_facts(UserError, *facts):
            export_policy(run, "more", tmp_path / "other", **fields)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_place_where_nothing_can_be_written_is_told_before_the_export_begins(run: Path, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with raises_facts(UserError, f"--to {tmp_path / 'file' / 'out'}", "Not a directory", "folder"):
        export_policy(run, "more", tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_conversation_answers_each_turn_and_ends_with_the_input(run: Path):
    lines, said = iter(["3 + 4 =", "", "5 + 5 ="]), []

    def read(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    converse(find_policy(run).folder, max_tokens=4, read=read, write=said.append)
    assert len(said) == 3  # two answers, and the line that ends the conversation
    assert said[-1] == ""


def test_a_turn_that_is_too_long_is_told_and_forgotten(run: Path):
    lines, said = iter(["word " * 600, "3 + 4 ="]), []

    def read(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    converse(find_policy(run).folder, max_tokens=4, read=read, write=said.append)
    assert_facts(said[0], 4, 508, "tokens")
    assert len(said) == 3
