"""Exports that a format cannot hold are refused before anything is trained."""

import json
from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.pipeline.pipeline import open_recipe
from tests.messages import raises_facts

RECIPE = """\
name: small
policy: {model: ./base}
data:
  sums: {source: reasoning_gym, task: chain_sum, size: 50, synthesise: {right: 0.5}}
stages:
  - {id: sft, kind: sft, data: sums, steps: 2, batch: 4, learning_rate: 1.0e-3}
  - {id: release, kind: export, policy: {from: sft}, formats: [transformers, gguf]}
"""


@pytest.mark.parametrize("multimodal", [False, True])
def test_a_gguf_file_of_a_policy_with_a_head_of_its_own_is_refused_by_validate(
    tmp_path: Path, multimodal: bool
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "small.yaml").write_text(RECIPE)
    for tied in (False, True):
        config = {"tie_word_embeddings": tied, "model_type": "gemma3_text"}
        (tmp_path / "base/config.json").write_text(json.dumps({"text_config": config} if multimodal else config))
        if tied:
            assert [node.id for node in open_recipe(str(tmp_path / "small.yaml")).nodes] == ["sft", "release"]
        else:
            with raises_facts(
                UserError, "stages.release.formats.1", "gguf", "lm_head", "./base", "tie_word_embeddings"
            ):
                open_recipe(str(tmp_path / "small.yaml"))
