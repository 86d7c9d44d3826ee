"""Every example of the documentation runs, and prints what its page shows."""

from pathlib import Path

import pytest

from tests.docs.pages import Block, blocks, differs, follow, with_fragment
from tests.warm_python import WarmPython

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
QUICK = [page for page in PAGES if any("slow" not in block.notes for block in blocks(page))]
SLOW = [page for page in PAGES if any("slow" in block.notes for block in blocks(page))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", QUICK, ids=name)
def test_the_examples_of_the_page_run(page: Path, tmp_path: Path, warm_python: WarmPython):
    assert follow(page, tmp_path, warm_python, slow=False) > 0


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW, ids=name)
def test_the_slow_examples_of_the_page_run_too(page: Path, tmp_path: Path, warm_python: WarmPython):
    assert follow(page, tmp_path, warm_python, slow=True) > 0


def read(tmp_path: Path, text: str, warm_python: WarmPython) -> int:
    page = tmp_path / "page.md"
    page.write_text(text)
    return follow(page, tmp_path, warm_python, slow=False)


RECIPE = """```yaml
# r.yaml
name: r
policy: {model: tiny}
data: {sums: {source: reasoning_gym, task: chain_sum, size: 10}}
stages:
  - {id: sft, kind: sft, data: sums, steps: 2, batch: 2, learning_rate: 1.0e-3}
```
"""


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("```python\n1 / 0\n```\n", "ZeroDivisionError"),
        ("```console\n$ echo one two\none three\n```\n", "printed\none two"),
        ("```sh\nfalse\n```\n", "exit code 1"),
        ("```yaml\na: 1\n```\n", "name the file"),
        ("```perl\nprint\n```\n", "`perl`"),
        ("<!-- not run: -->\n```sh\nfalse\n```\n", "say why"),
        ('```python\nprint("a")\n```\n\n<!-- output -->\n```text\nb\n```\n', "printed\na"),
        (RECIPE + "<!-- fragment of: r.yaml stages.sft -->\n```yaml\nstepz: 3\n```\n", "stepz"),
        (RECIPE + "```console\n$ gemsmith validate r.yaml\nnothing\n```\n", "`gemsmith validate r.yaml` printed"),
    ],
)
def test_a_wrong_example_fails_the_page(text: str, fact: str, tmp_path: Path, warm_python: WarmPython):
    with pytest.raises(AssertionError) as caught:
        read(tmp_path, text, warm_python)
    assert fact in str(caught.value)


def test_right_examples_are_followed_in_order(tmp_path: Path, warm_python: WarmPython):
    text = RECIPE + (
        "<!-- fragment of: r.yaml -->\n```yaml\n"
        "- {id: sft, kind: sft, data: sums, steps: 3, batch: 2, learning_rate: 1.0}\n```\n"
        "```python\nx = 2\n```\n\n```python\nprint(x)\n```\n\n<!-- output -->\n```text\n2\n```\n"
        "<!-- slow -->\n```sh\nfalse\n```\n<!-- exit code: 3 -->\n```sh\nexit 3\n```\n"
    )
    assert read(tmp_path, text, warm_python) == 6


def test_output_is_compared_but_for_seconds_and_dots():
    assert not differs("took 3 s\na ... d\n", "took 12.5 s\na b c d")
    assert differs("a ... d", "a b c")


def test_a_fragment_replaces_the_stage_of_its_id():
    recipe = {"stages": [{"id": "a", "steps": 1}, {"id": "b"}], "data": {"x": 1}}
    assert with_fragment(recipe, "", [{"id": "a", "steps": 2}])["stages"] == [{"id": "b"}, {"id": "a", "steps": 2}]
    assert with_fragment(recipe, "stages.a", {"steps": 3})["stages"][0] == {"id": "a", "steps": 3}
    assert with_fragment(recipe, "", {"data": {"y": 2}})["data"] == {"x": 1, "y": 2}


def test_a_block_may_name_its_file():
    assert Block("python", "# my/file.py\nx = 1\n", 1).file == "my/file.py"
    assert Block("json", "{}\n", 1, {"file": "rows.jsonl"}).file == "rows.jsonl"
    assert Block("python", "# not a file\n", 1).file is None
