"""Exports do not publish paths of the machine that they were made on."""

import pytest

from gemsmith.export.publishing import published, without_local_paths


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("google/gemma-3-1b-pt", "google/gemma-3-1b-pt"),
        ("tiny", "tiny"),
        ("/home/mine/models/gemma-3-270m-q4_k_m.gguf", "gemma-3-270m-q4_k_m.gguf"),
        ("~/models/base", "base"),
        ("../models/base", "base"),
        ("./base/", "base"),
    ],
)
def test_a_local_model_is_named_by_its_last_part(name: str, shown: str) -> None:
    assert published(name) == shown


def test_paths_in_a_text_are_cut_and_everything_else_stays() -> None:
    text = (
        "policy: {model: /home/mine/base}\npath: '/data/My rows/rows.jsonl'\nurl: http://host/v1/x\nshare: 1/2 and a/b"
    )
    assert without_local_paths(text) == (
        "policy: {model: base}\npath: 'rows.jsonl'\nurl: http://host/v1/x\nshare: 1/2 and a/b"
    )
    assert without_local_paths("model: ~/models/base") == "model: base"
