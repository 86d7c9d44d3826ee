"""Answers that a stage of the recipe has written, as data: what is read, and that held-out prompts stay held out."""

import json
from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.curation.config import Generated, JsonLinesData, Mixture
from gemsmith.curation.example import Example
from gemsmith.curation.generated import FILE, answer_row, read_answers
from gemsmith.curation.load import load_data


def source(folder: Path) -> JsonLinesData:
    rows = [{"question": f"{i} + {i} =", "true": f"{2 * i}"} for i in range(20)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"path": "rows.jsonl", "prompt": "{question}", "answer": "{true}", "columns": ["true"], "holdout": 0.3}
    return JsonLinesData.model_validate({"source": "jsonl", **fields})


def generated(folder: Path, examples: list[Example]) -> Generated:
    lines = [json.dumps(answer_row(example, f"is {example.answer}", None, {})) for example in examples]
    (folder / FILE).write_text("".join(line + "\n" for line in lines))
    fields = {"source": "generated", "from": "gen", "section": source(folder), "folder": folder}
    return Generated.model_validate(fields)


def test_an_example_comes_back_as_it_was_with_the_answer_as_its_demonstration(tmp_path: Path):
    history = (("user", "hello\u2028"), ("assistant", "hi"))
    asked = Example("2 + 2 =", "Be brief.", "4", task="sums", columns={"level": [1, 2]}, history=history)
    rows = [answer_row(asked, "four", "five", {"reward": 1.0}), answer_row(asked, "4", None, {"reward": 1.0})]
    (tmp_path / FILE).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    paired, alone = read_answers(tmp_path)
    assert (paired.demonstration, paired.chosen, paired.rejected) == ("four", "four", "five")
    assert (alone.demonstration, alone.chosen, alone.rejected) == ("4", None, None)
    for example in (paired, alone):
        assert example.messages == asked.messages and example.where.startswith(str(tmp_path / FILE))
        assert (example.answer, example.task, example.columns) == ("4", "sums", {"level": [1, 2]})


def test_the_prompts_held_out_are_those_of_the_section_whose_prompts_were_asked(tmp_path: Path):
    split = load_data(source(tmp_path), name="rows", seed=0, root=tmp_path)
    found = load_data(generated(tmp_path, split.train[:4]), name="answers", seed=0, root=tmp_path)
    assert [example.demonstration for example in found.train] == [f"is {e.answer}" for e in split.train[:4]]
    assert found.test == split.test and len(found.test) > 0


def test_an_answer_to_a_prompt_that_is_held_out_is_never_trained_on(tmp_path: Path):
    split = load_data(source(tmp_path), name="rows", seed=0, root=tmp_path)
    with pytest.raises(AssertionError, match="both sides"):
        load_data(generated(tmp_path, split.test[:1]), name="answers", seed=0, root=tmp_path)


def test_answers_can_be_mixed_with_other_sections(tmp_path: Path):
    split = load_data(source(tmp_path), name="rows", seed=0, root=tmp_path)
    more = [{"prompt": f"word {i}", "said": "yes"} for i in range(8)]
    (tmp_path / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more))
    words = JsonLinesData(source="jsonl", path="words.jsonl", demonstration="{said}", holdout=0.1)
    sections = {"answers": generated(tmp_path, split.train), "words": words}
    mixture = Mixture(source="mixture", of={"answers": 1, "words": 1}, sections=sections)
    assert mixture.columns == ["true"]
    train = load_data(mixture, name="both", seed=0, root=tmp_path).train
    assert {example.task for example in train} == {"answers", "words"}
    assert all(example.demonstration for example in train)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a"}', r"answers.jsonl:1: .*generate"),
        ('{"prompt": ', r"answers.jsonl:1, column \d+: not valid JSON"),
        (None, r"answers.jsonl .*generate"),
    ],
)
def test_a_file_that_is_no_stages_output_is_refused(tmp_path: Path, line: str | None, message: str):
    if line is not None:
        (tmp_path / FILE).write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        read_answers(tmp_path)


def test_answers_whose_place_is_not_known_are_not_taken_for_their_prompts(tmp_path: Path):
    unbound = generated(tmp_path, []).model_copy(update={"folder": None})
    with pytest.raises(ValueError, match="not bound"):
        load_data(unbound, name="answers", seed=0, root=tmp_path)
