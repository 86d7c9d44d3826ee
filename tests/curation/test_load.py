import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from pydantic import TypeAdapter

from gemsmith.contracts.errors import UserError
from gemsmith.curation.config import AnyData
from gemsmith.curation.load import DataSplit, load_data, unique_prompts

Loader = Callable[..., DataSplit]
ROOT = Path(__file__).parents[2]
GSM8K = ROOT.parent / "shared" / "data" / "gsm8k"


def load(root: Path, seed: int = 0, /, **section: Any) -> DataSplit:
    return load_data(TypeAdapter(AnyData).validate_python(section), name="sums", seed=seed, root=root)


@pytest.fixture
def from_rows(tmp_path: Path) -> Loader:
    """Loads a JSON lines section made of the given rows."""

    def loader(rows: list[Any], seed: int = 0, **section: Any) -> DataSplit:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return load(tmp_path, seed, source="jsonl", path="rows.jsonl", **section)

    return loader


def numbered(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"question {number}", "answer": str(number)} for number in range(count)]


def test_a_row_becomes_an_example_through_its_templates(from_rows: Loader):
    row = {"q": "2 + 2 =", "meta": {"level": 3}, "good": "4", "bad": ["5", "6"], "extra": 1.5}
    (example,) = from_rows(
        [row],
        prompt="[{meta[level]}] {q}",
        system="Be brief.",
        answer="{good}",
        demonstration="{{{good}}}",
        chosen="{good}",
        rejected="{bad[1]}",
        task="level-{meta[level]}",
        columns=["extra"],
        holdout=0,
    ).train
    assert example.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "[3] 2 + 2 ="},
    ]
    assert (example.answer, example.demonstration, example.chosen, example.rejected) == ("4", "{4}", "4", "6")
    assert (example.task, example.columns) == ("level-3", {"extra": 1.5})


def test_braces_in_a_rows_values_are_only_text(from_rows: Loader):
    assert from_rows([{"prompt": "{answer} {0} {"}], holdout=0).train[0].prompt == "{answer} {0} {"


def test_the_split_follows_the_prompt_alone(from_rows: Loader):
    rows = numbered(400)
    split = from_rows(rows, holdout=0.25)
    held = {example.prompt for example in split.test}
    assert 0.18 < len(held) / 400 < 0.32
    assert not held & {example.prompt for example in split.train}
    again = from_rows([{**row, "prompt": " ".join(row["prompt"].split()) + "\n"} for row in rows[::-1]], holdout=0.25)
    assert {example.prompt.strip() for example in again.test} == held
    more = {example.prompt for example in from_rows(rows, holdout=0.5).test}
    assert held < more
    assert {example.prompt for example in from_rows(rows, seed=1, holdout=0.25).test} != held


def test_rows_of_one_prompt_stay_together_and_the_hold_out_has_it_once(from_rows: Loader):
    rows = [{**row, "take": str(take)} for row in numbered(100) for take in range(3)]
    split = from_rows(rows, demonstration="{take}", holdout=0.3)
    assert len(split.train) == 3 * len(unique_prompts(split.train))
    assert len(split.test) == len(unique_prompts(split.test))
    assert len(split.train) // 3 + len(split.test) == 100
    assert split.dropped == {"prompt repeated in the hold-out": 2 * len(split.test)}


def test_the_limit_counts_distinct_prompts(from_rows: Loader):
    rows = [row for row in numbered(50) for _ in range(2)]
    split = from_rows(rows, limit=20, holdout=0)
    assert (len(split.train), len(unique_prompts(split.train))) == (40, 20)
    assert split.dropped == {"beyond the limit": 60}


def test_rows_that_cannot_be_used_are_dropped_and_counted(from_rows: Loader):
    rows = [
        {"prompt": "good", "a": "1", "b": "2"},
        {"prompt": " ", "a": "1", "b": "2"},
        {"prompt": None, "a": "1", "b": "2"},
        {"prompt": "no chosen", "a": None, "b": "2"},
        {"prompt": "no difference", "a": "2", "b": "2"},
    ]
    split = from_rows(rows, chosen="{a}", rejected="{b}", holdout=0)
    assert [example.prompt for example in split.train] == ["good"]
    assert split.dropped == {"empty prompt": 2, "empty chosen": 1, "chosen and rejected are the same": 1}


def test_a_missing_answer_is_none_and_not_the_word(from_rows: Loader):
    assert from_rows([{"prompt": "p", "answer": None}], answer="{answer}", holdout=0).train[0].answer is None


def test_reasoning_gym_gives_the_same_distinct_prompts_for_one_seed(tmp_path: Path):
    section = {"source": "reasoning_gym", "task": "chain_sum", "size": 300, "prompt": "{metadata[expression]} ="}
    options = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    split = load(tmp_path, **section, options=options)
    prompts = [example.prompt for example in split.train + split.test]
    assert len(prompts) == len(set(prompts)) == 300 - split.dropped["repeated prompt"]
    assert all(eval(example.prompt.rstrip("= ")) == int(example.answer or "") for example in split.train)
    assert {example.task for example in split.train} == {"chain_sum"}
    assert load(tmp_path, **section, options=options) == split
    assert load(tmp_path, 1, **section, options=options) != split


def test_a_path_is_beside_the_recipe_or_else_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    beside, working = tmp_path / "recipe", tmp_path / "working"
    for folder, name in ((beside, "a"), (working, "a"), (working, "b")):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.jsonl").write_text(json.dumps({"prompt": folder.name}) + "\n")
    monkeypatch.chdir(working)
    assert load(beside, source="jsonl", path="a.jsonl", holdout=0).train[0].prompt == "recipe"
    assert load(beside, source="jsonl", path="b.jsonl", holdout=0).train[0].prompt == "working"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"prompt": "{questoin}"}, ["`prompt: '{questoin}'`", "'questoin'", "rows.jsonl:1", "prompt, answer"]),
        ({"answer": "{answer[key]}"}, ["`answer: '{answer[key]}'`", "rows.jsonl:1"]),
        ({"answer": "{"}, ["`answer: '{'`", "not a template"]),
        ({"answer": "{}"}, ["`answer: '{}'`", "rows.jsonl:1"]),
        ({"columns": ["level"]}, ["'level'", "rows.jsonl:1", "prompt, answer"]),
        ({"path": "row.jsonl"}, ["row.jsonl does not exist", 'did you mean "rows.jsonl"']),
        ({"path": "."}, ["is a folder"]),
    ],
)
def test_a_section_that_does_not_fit_its_file_says_what_and_where(
    from_rows: Loader, tmp_path: Path, section: dict[str, Any], words: list[str]
):
    from_rows(numbered(3))
    with pytest.raises(UserError) as caught:
        load(tmp_path, **{"source": "jsonl", "path": "rows.jsonl", **section})
    for word in ["data sums", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"prompt": "p",}\n', ["column 16", "not valid JSON"]),
        (b'["prompt"]\n', ["JSON array"]),
        (b'{"prompt": "caf\xe9"}\n', ["not UTF-8"]),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: bytes, words: list[str]):
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "p"}\n\n' + line)
    with pytest.raises(UserError) as caught:
        load(tmp_path, source="jsonl", path="rows.jsonl")
    for word in ["rows.jsonl:3", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"task": "chain_smu"}, 'did you mean "chain_sum"'),
        ({"task": "chain_sum", "options": {"terms": 2}}, "'terms'"),
        ({"task": "chain_sum", "options": {"min_terms": 9, "max_terms": 2}}, "max_terms must be >= min_terms"),
    ],
)
def test_reasoning_gyms_own_complaints_name_the_section(tmp_path: Path, section: dict[str, Any], words: str):
    with pytest.raises(UserError, match=f"data sums: .*{words}"):
        load(tmp_path, source="reasoning_gym", size=5, **section)


def test_nothing_to_train_on_is_an_error_with_the_reasons(from_rows: Loader):
    with pytest.raises(UserError, match=r"data sums: .*no rows"):
        from_rows([])
    with pytest.raises(UserError, match="2 dropped: empty prompt"):
        from_rows([{"prompt": ""}, {"prompt": ""}])
    with pytest.raises(UserError, match=r"all 1 prompts .*0\.99.*holdout"):
        from_rows([{"prompt": "question 1"}], holdout=0.99)


def test_a_hub_data_set_is_read_through_datasets(tmp_path: Path):
    """`datasets` reads a local folder under the same name as a hub id: the one part of the hub that is here."""
    folder = tmp_path / "animals"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in numbered(6)))
    split = load(tmp_path, source="hub", name=str(folder), answer="{answer}", holdout=0)
    assert [example.answer for example in split.train] == ["0", "1", "2", "3", "4", "5"]
    with pytest.raises(UserError, match="split test could not be read"):
        load(tmp_path, source="hub", name=str(folder), split="test")


def test_a_data_set_in_a_folder_is_read_again_if_its_content_changed(tmp_path: Path):
    """The cache of `datasets` knows a local file by its time, which `cp --preserve` keeps."""
    folder = tmp_path / "table"
    folder.mkdir()
    for number in (1, 2):
        pandas.DataFrame({"prompt": [f"{number} + 1 ="]}).to_parquet(folder / "train.parquet")
        os.utime(folder / "train.parquet", (1, 1))
        (row,) = load(tmp_path, source="hub", name="table", holdout=0).train  # relative to the recipe, as every path
        assert row.prompt == f"{number} + 1 ="


def test_an_unreachable_hub_is_one_sentence_with_a_way_out(tmp_path: Path):
    program = (
        "from pathlib import Path\nfrom gemsmith.curation.config import HubData\n"
        "from gemsmith.curation.load import load_data\n"
        "load_data(HubData(source='hub', name='nobody/nothing-here'), name='far', seed=0, root=Path('.'))"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "gemsmith.contracts.errors.UserError: data far: the hub data set nobody/nothing-here cannot be reached"
    )
    assert "source: jsonl" in last


def test_reading_a_section_imports_no_torch(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "p"}) + "\n")
    program = (
        "import sys\nfrom pathlib import Path\nfrom gemsmith.curation.config import *\n"
        "from gemsmith.curation.load import load_data\n"
        "section = JsonLinesData(source='jsonl', path='rows.jsonl', holdout=0)\n"
        f"load_data(section, name='d', seed=0, root=Path({str(tmp_path)!r}))\n"
        "print(sorted({'torch', 'datasets', 'reasoning_gym'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.skipif(not GSM8K.is_dir(), reason="shared/data/gsm8k is not on this machine")
def test_gsm8k_loads_whole(tmp_path: Path):
    split = load(tmp_path, source="jsonl", path=str(GSM8K / "train.jsonl"), prompt="{question}", answer="{answer}")
    assert len(split.train) + len(split.test) == 7473
    assert split.dropped == {}
