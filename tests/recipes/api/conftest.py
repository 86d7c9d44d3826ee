"""Run the code of docs/reference/python-api.md once, in order, for all tests of the Python API."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import gemsmith

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "python-api.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """The folder, the variables and the output of the page's code."""

    folder: Path
    names: dict[str, Any]
    printed: str

    @property
    def run(self) -> gemsmith.Run:
        """Return the page's run."""
        found: gemsmith.Run = self.names["run"]
        return found

    @property
    def recipe(self) -> dict[str, Any]:
        """Return the page's recipe, whose `sft` ran with 10 steps."""
        found: dict[str, Any] = self.names["recipe"]
        return found


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    folder = tmp_path_factory.mktemp("page")
    before, names, printed = Path.cwd(), {"__name__": "page"}, []
    names["print"] = lambda *values: printed.append(" ".join(map(str, values)))
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) == 7
    os.chdir(folder)
    try:
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
    finally:
        os.chdir(before)
    return Example(folder, names, "\n".join(printed))
