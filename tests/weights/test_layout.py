"""Merges of checkpoints that are stored differently, and of those that do not belong together."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gemsmith.contracts.errors import UserError
from gemsmith.weights.merge import average, interpolate, slerp
from tests.messages import raises_facts

CONFIG: dict[str, Any] = {"hidden_size": 4, "sliding_window": 8, "tie_word_embeddings": True, "use_cache": True}


def text(path: Path, value: float, rows: int = 6, **config: Any) -> Path:
    """Write a text checkpoint whose tensors all have one value."""
    path.mkdir()
    tensors = {"model.embed_tokens.weight": torch.full((rows, 4), value), "model.norm.weight": torch.full((4,), value)}
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (path / "tokenizer.json").write_text("{}")
    return path


def multimodal(path: Path, value: float, rows: int = 6, prefix: str = "model.language_model.") -> Path:
    """Write a multimodal checkpoint with a vision tower."""
    path.mkdir()
    tensors = {
        f"{prefix}embed_tokens.weight": torch.full((rows, 4), value),
        f"{prefix}norm.weight": torch.full((4,), value),
        "model.vision_tower.weight": torch.full((3,), 7.0),
        "model.multi_modal_projector.weight": torch.full((2,), 9.0),
    }
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"text_config": CONFIG, "vision_config": {}}))
    (path / "tokenizer.json").write_text("{}")
    return path


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model."])
def test_a_trained_text_model_merges_into_its_multimodal_base(tmp_path: Path, prefix: str) -> None:
    base, trained = multimodal(tmp_path / "base", 1.0, prefix=prefix), text(tmp_path / "text", 3.0)
    interpolate(base, trained, 0.5, tmp_path / "out")
    found = stored(tmp_path / "out")
    assert found.keys() == stored(base).keys()
    assert found[f"{prefix}norm.weight"].tolist() == [2.0] * 4
    assert found["model.vision_tower.weight"].tolist() == [7.0] * 3
    assert json.loads((tmp_path / "out/config.json").read_text())["vision_config"] == {}


def test_a_text_model_takes_the_text_tower_of_a_multimodal_one(tmp_path: Path) -> None:
    average([text(tmp_path / "text", 3.0), multimodal(tmp_path / "base", 1.0)], tmp_path / "out")
    found = stored(tmp_path / "out")
    assert found.keys() == stored(tmp_path / "text").keys() and found["model.norm.weight"].tolist() == [2.0] * 4


def test_rows_beyond_the_tokenizer_are_kept_from_the_first(tmp_path: Path) -> None:
    base, trained = multimodal(tmp_path / "base", 1.0, rows=8), text(tmp_path / "text", 3.0, rows=6)
    slerp(base, [trained, trained], tmp_path / "out")
    embedding = stored(tmp_path / "out")["model.language_model.embed_tokens.weight"]
    assert embedding[:6].allclose(torch.tensor(3.0)) and embedding[6:].eq(1.0).all()


def test_embeddings_of_other_tokenizers_are_refused(tmp_path: Path) -> None:
    one, other = text(tmp_path / "a", 1.0, rows=8), text(tmp_path / "b", 3.0, rows=6)
    (other / "tokenizer.json").write_text('{"added": 1}')
    with raises_facts(UserError, "model.embed_tokens.weight", "[8, 4]", "[6, 4]"):
        average([one, other], tmp_path / "out")


@pytest.mark.parametrize("order", [lambda a, b: [a, b], lambda a, b: [b, a]])
def test_a_stored_copy_of_a_tied_head_is_no_tensor_of_its_own(
    tmp_path: Path, order: Callable[[Path, Path], list[Path]]
) -> None:
    plain, copy = text(tmp_path / "plain", 1.0), text(tmp_path / "copy", 3.0)
    tensors = stored(copy)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, copy / "model.safetensors")
    average(order(plain, copy), tmp_path / "out")
    assert stored(tmp_path / "out").keys() == stored(plain).keys()


def test_a_head_that_differs_from_the_embedding_it_is_tied_to_is_named(tmp_path: Path) -> None:
    copy = text(tmp_path / "copy", 3.0)
    save_file({**stored(copy), "lm_head.weight": torch.zeros(6, 4)}, copy / "model.safetensors")
    with raises_facts(UserError, copy, "lm_head.weight", "tie_word_embeddings"):
        average([copy, copy], tmp_path / "out")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused_with_the_folder_and_the_tensor(tmp_path: Path, bad: float) -> None:
    one, other = text(tmp_path / "a", 1.0), text(tmp_path / "b", 3.0)
    tensors = stored(other)
    tensors["model.norm.weight"][2] = bad
    save_file(tensors, other / "model.safetensors")
    for merge in (
        lambda out: average([one, other], out),
        lambda out: slerp(one, [other, one], out),
        lambda out: interpolate(one, other, 0.5, out),
    ):
        with raises_facts(UserError, "model.norm.weight", other, "NaN or infinity"):
            merge(tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("sliding_window", 4), ("rope_theta", 1e4), ("layer_types", ["full_attention"]), ("num_attention_heads", 2)],
)
def test_configurations_that_give_weights_another_meaning_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    first = {"sliding_window": 8, "rope_theta": 1e6, "layer_types": ["sliding_attention"], "num_attention_heads": 4}
    one, other = text(tmp_path / "a", 1.0, **first), text(tmp_path / "b", 3.0, **{**first, name: value})
    with raises_facts(UserError, name, json.dumps(value), one, other):
        average([one, other], tmp_path / "out")


def test_how_a_model_is_loaded_may_differ(tmp_path: Path) -> None:
    one = text(tmp_path / "a", 1.0, dtype="float32", eos_token_id=1)
    other = text(
        tmp_path / "b", 3.0, dtype="bfloat16", use_cache=False, eos_token_id=[1, 106], transformers_version="5"
    )
    average([one, other], tmp_path / "out")
