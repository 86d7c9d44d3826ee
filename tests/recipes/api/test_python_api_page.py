"""The code of docs/reference/python-api.md runs in order, prints what the page shows, and leaves the files it names."""

from pathlib import Path

from tests.recipes.api.conftest import Example


def test_the_code_of_the_page_runs_and_prints_what_the_page_shows(example: Example):
    printed = example.printed
    assert str(example.folder / "runs" / "sums" / "report.html") in printed
    assert "✓ sft     sft       finished" in printed
    assert "1.0 right " in printed
    assert "1.0 (True, True)" in printed
    assert "[1.0, 0.0]" in printed
    assert "set={'stages.sft.stepz': 10}: stages.sft.stepz: found the unknown key \"stepz\"" in printed
    assert 'did you mean "steps"?' in printed


def test_the_code_of_the_page_leaves_its_files(example: Example):
    assert (example.folder / "half" / "model.safetensors").is_file()
    assert [path.name for path in sorted(example.folder.iterdir())] == ["half", "runs"]
    assert Path(example.run.report).read_text().startswith("<!doctype html>")
