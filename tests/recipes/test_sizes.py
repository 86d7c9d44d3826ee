"""Sizes from configuration files as they are on people's disks."""

import json
from pathlib import Path

from policy.config import PolicyConfig
from recipes.sizes import KNOWN, shape_of


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
