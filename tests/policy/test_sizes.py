"""Sizes from configuration files as they are on people's disks."""

import json
from pathlib import Path
from typing import Any

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.sizes import KNOWN, context_of, shape_of
from gemsmith.recipes.pipeline.pipeline import open_recipe
from tests.messages import assert_facts


def test_a_multimodal_configuration_that_is_silent_on_defaults_has_a_size(tmp_path: Path) -> None:
    text = {  # all that google/gemma-3-4b-pt says of its text tower, but for the rescaling and the window
        "hidden_size": 2560,
        "intermediate_size": 10_240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
    }
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    policy = PolicyConfig.model_validate({"model": str(tmp_path), "rope": {"factor": 16}})
    assert shape_of(policy, tmp_path) == KNOWN["4b"]


def test_the_context_is_the_configurations_rescaled(tmp_path: Path) -> None:
    def context(config: dict[str, Any], **rope: float) -> int | None:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return context_of(PolicyConfig.model_validate({"model": str(tmp_path), "rope": rope or None}), tmp_path)

    short = {"max_position_embeddings": 32_768}
    assert context(short) == 32_768
    assert context(short, factor=8) == 262_144
    eight = {"text_config": {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}}}
    assert context(eight) == context(eight, factor=8) == 131_072
    assert context({"text_config": {"rope_parameters": {"full_attention": {"factor": 8.0}}}}, factor=16) == 262_144
    assert context({}) is None
    assert context_of(PolicyConfig.model_validate({"model": "tiny", "rope": {"factor": 2}}), tmp_path) == 1024


RECIPE = """\
name: sums
policy: {model: tiny}
data:
  sums: {source: reasoning_gym, task: chain_sum, size: 100, synthesise: {}}
stages:
  - {id: sft, kind: sft, data: sums, steps: 4, batch: 8, learning_rate: 1e-3, max_length: 513}
  - {id: student, kind: distill, teacher: {model: tiny}, data: sums, steps: 4, batch: 8, learning_rate: 1e-3}
engine: {sequence_parallel: 2}
"""


def test_a_recipe_that_asks_for_too_much_is_refused_before_it_runs(tmp_path: Path) -> None:
    (tmp_path / "sums.yaml").write_text(RECIPE)
    with pytest.raises(UserError) as caught:
        open_recipe(str(tmp_path / "sums.yaml"))
    message = str(caught.value)
    assert "found 513, expected at most the policy's context of 512 tokens" in message
    assert_facts(message, "engine.sequence_parallel", "found 2", '"student"', "sft")
    assert ":6" in message and ":8" in message  # the lines
    longer = RECIPE.replace("model: tiny}\ndata", "model: tiny, rope: {factor: 8}}\ndata")
    (tmp_path / "sums.yaml").write_text(longer.replace("sequence_parallel: 2", "sequence_parallel: 1"))
    assert [node.id for node in open_recipe(str(tmp_path / "sums.yaml")).nodes] == ["sft", "student"]
