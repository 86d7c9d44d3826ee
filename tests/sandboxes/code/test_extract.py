import pytest

from gemsmith.sandboxes.code.extract import Continuation, defines, fenced_blocks, find_program

PROMPT = 'from typing import List\n\n\ndef total(xs: List[int]) -> int:\n    """Sum."""\n'
TOTAL = Continuation(PROMPT, "total", "from typing import List")
WHOLE = "def total(xs: List[int]) -> int:\n    return sum(xs)\n"


def fenced(code: str, language: str = "python") -> str:
    return f"Here it is:\n```{language}\n{code}```\nIt adds them up.\n"


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("x = 1\n", "x = 1\n"),
        (fenced("x = 1\n"), "x = 1\n"),
        (fenced("x = 1\n", ""), "x = 1\n"),
        (fenced("x = 1\n") + fenced("x = 2\n"), "x = 2\n"),
        (fenced("x = 1\n") + fenced("3\n", "text"), "x = 1\n"),
        (fenced("x = 1\n", "Py") + fenced("3\n", ""), "x = 1\n"),
        ("~~~python\nx = '```'\n```\n~~~\n", "x = '```'\n```\n"),
        ("1. So:\n   ```python\n   if x:\n       y()\n   ```\n", "if x:\n    y()\n"),
        ("```python\r\nx = 1\r\n```\r\n", "x = 1\r\n"),
        ("<think>```python\nwrong\n```</think>\n" + fenced("x = 1\n"), "x = 1\n"),
        ("x = 1\n```", "x = 1\n"),
        ("x = 1\n```\nThat is all.", None),
    ],
)
def test_the_program_of_a_completion(completion: str, program: str | None):
    assert find_program(completion) == program


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "  \n",
        "<think>x = 1",
        "```python\nx = 1\n",
        fenced("x = 1\n") + "```python\nx = 2\n",
        "```python\n```\n",
        "<think>fine</think>",
    ],
)
def test_what_was_cut_off_or_is_empty_has_no_program(completion: str):
    assert find_program(completion) is None
    assert find_program(completion, continues=TOTAL) is None


def test_without_a_fence_a_completion_continues_the_prompt():
    assert find_program("    return sum(xs)\n", continues=TOTAL) == PROMPT + "    return sum(xs)\n"


def test_a_fenced_function_stands_on_the_prompts_imports():
    assert find_program(fenced(WHOLE), continues=TOTAL) == f"from typing import List\n\n{WHOLE}"


def test_a_fenced_function_with_future_imports_stands_alone():
    code = f"from __future__ import annotations\n{WHOLE}"
    assert find_program(fenced(code), continues=TOTAL) == code


@pytest.mark.parametrize("body", ["    return sum(xs)\n", "return sum(xs)\n"])
def test_a_fenced_body_continues_the_prompt(body: str):
    assert find_program(fenced(body), continues=TOTAL) == PROMPT + "    return sum(xs)\n"


def test_of_several_blocks_the_last_that_defines_the_function_is_taken():
    usage = fenced("print(total([1, 2]))\n")
    assert find_program(fenced(WHOLE) + usage, ["total"]) == WHOLE
    assert find_program(fenced(WHOLE) + usage, continues=TOTAL) == f"from typing import List\n\n{WHOLE}"
    assert find_program(fenced("total = sum\n") + usage, ["total"]) == "total = sum\n"


def test_only_a_line_at_the_outer_level_defines_a_function():
    assert defines("async  def f (x): ...", "f") and defines("f = g", "f")
    assert not any(
        defines(code, "f") for code in ("f == g", "class A:\n    def f(self): ...", "def ff(): ...", "g = f")
    )


def test_a_hostile_megabyte_is_read_in_one_pass():
    for text in ("`" * 1_000_000, "```" + " " * 1_000_000 + "`", " " * 1_000_000 + "```x", "```\n" * 250_000):
        fenced_blocks(text)
        find_program(text, ["f"], TOTAL)
    find_program("def" + " " * 1_000_000 + "g", ["f"])
