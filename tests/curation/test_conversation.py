"""Rows whose columns hold conversations, as chat and preference data sets have them."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from gemsmith.contracts.errors import UserError
from gemsmith.curation.config import AnyData
from gemsmith.curation.load import DataSplit, load_data

HERE = Path(__file__).parents[2] / "recipes"
HELLO = [("user", "Hello"), ("assistant", "Hi"), ("user", "How are you?")]
SIDES = {"prompt": "{chosen}", "chosen": "{chosen}", "rejected": "{rejected}"}


def messages(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in turns]


def load(folder: Path, rows: list[dict[str, Any]], seed: int = 0, **section: Any) -> DataSplit:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = TypeAdapter(AnyData).validate_python({"source": "jsonl", "path": "rows.jsonl", "holdout": 0, **section})
    return load_data(config, name="talk", seed=seed, root=folder)


def test_both_sides_of_a_preference_are_whole_conversations(tmp_path: Path):
    row = {"chosen": messages(*HELLO, ("assistant", "Well!")), "rejected": messages(*HELLO, ("model", "Why?"))}
    (example,) = load(tmp_path, [row], **SIDES).train
    assert (example.prompt, example.chosen, example.rejected) == ("How are you?", "Well!", "Why?")
    assert example.messages == messages(*HELLO)


def test_a_prompt_of_messages_and_a_completion_of_one(tmp_path: Path):
    row = {"prompt": messages(("system", "Be brief."), *HELLO), "chosen": messages(("assistant", "Well!"))}
    (example,) = load(tmp_path, [row | {"rejected": "Why?"}], chosen="{chosen}", rejected="{rejected}").train
    assert (example.system, example.chosen, example.rejected) == ("Be brief.", "Well!", "Why?")
    assert example.messages == messages(("system", "Be brief."), *HELLO)


def test_a_demonstration_ends_its_own_conversation_and_the_recipes_system_text_comes_first(tmp_path: Path):
    row = {"talk": messages(("system", "Be brief."), *HELLO, ("assistant", "Well!"))}
    (example,) = load(tmp_path, [row], prompt="{talk}", demonstration="{talk}", system="Be kind.").train
    assert example.demonstration == "Well!"
    assert example.messages == messages(("system", "Be kind."), *HELLO)


def test_sides_that_answer_different_conversations_are_dropped_and_counted(tmp_path: Path):
    good = {"chosen": messages(*HELLO, ("assistant", "Well!")), "rejected": messages(*HELLO, ("assistant", "Why?"))}
    other = good | {"rejected": messages(("user", "Bye"), ("assistant", "Why?"))}
    unanswered = good | {"chosen": messages(*HELLO)}
    split = load(tmp_path, [good, other, unanswered], **SIDES)
    assert len(split.train) == 1
    assert split.dropped == {"rejected continues another conversation": 1, "empty chosen": 1}


def test_the_last_turn_alone_does_not_make_two_conversations_one(tmp_path: Path):
    rows = [
        {"talk": messages(("user", f"Tell me of {thing}."), ("assistant", "Shall I?"), ("user", "Yes"))}
        for thing in range(200)
    ]
    split = load(tmp_path, rows, prompt="{talk}", holdout=0.5)
    assert 60 < len(split.test) < 140
    assert len(split.test) + len(split.train) == 200
    assert len(load(tmp_path, rows, prompt="{talk}", limit=7).train) == 7


@pytest.mark.parametrize(
    ("turns", "found"),
    [
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "are user, user; expected user and"),
        ([{"role": "tool", "content": "a"}], "message 1 of .* has the role 'tool' and a text; expected"),
        ([{"role": "user", "content": [{"type": "image"}]}], "has the role 'user' and no text; expected"),
    ],
)
def test_other_conversations_are_named_with_their_row(tmp_path: Path, turns: list[Any], found: str):
    with pytest.raises(UserError, match=found) as error:
        load(tmp_path, [{"talk": turns}], prompt="{talk}")
    assert "rows.jsonl:1" in str(error.value)


def test_transcripts_of_the_hh_data_are_conversations(tmp_path: Path):
    start = "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: How\n\nHuman: are you?\n\nAssistant:"
    (tmp_path / "hh.jsonl").write_text(json.dumps({"chosen": f"{start} Well!", "rejected": f"{start} Why?"}) + "\n")
    section = {"source": "python", "target": "data/hh_rlhf.py:pairs", "options": {"path": str(tmp_path / "hh.jsonl")}}
    config = TypeAdapter(AnyData).validate_python(section | SIDES | {"holdout": 0})
    (example,) = load_data(config, name="hh", seed=0, root=HERE).train
    assert example.history == (("user", "Hello"), ("assistant", "Hi"))
    assert (example.prompt, example.chosen, example.rejected) == ("How\n\nare you?", "Well!", "Why?")
