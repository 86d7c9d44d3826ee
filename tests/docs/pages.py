"""Runs the examples of a page of documentation in order, in one empty folder, as a reader would.

A fenced block is an example by its language:

- `python` runs; blocks of a page share their variables.
- `sh` and `console` run in a shell. In `console`, a line "$ command" is followed by the output that it must print,
  where "..." stands in for any text; numbers of seconds may differ.
- `yaml` is a file, or a fragment of a file that the page has written before, and must then be a valid recipe.

A block whose first line is a comment with a file name, such as "# recipe.yaml", is written to that file instead. A
comment just before a block says more: `<!-- file: rows.jsonl -->`, `<!-- fragment of: recipe.yaml stages.sft -->`,
`<!-- exit code: 2 -->`, `<!-- output -->` (the text that the Python block before printed), `<!-- slow -->` (more than
30 seconds, for `make test-all`), `<!-- not run: reason -->`.
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from ruamel.yaml import YAML

import gemsmith
from tests.warm_python import WarmPython

SHOWN = {"text", "json", "diff", "toml", "c", "bibtex", "{toctree}", "{include}", "{literalinclude}", "{eval-rst}"}
NAMED = re.compile(r"# ([\w./-]+\.(?:py|yaml|toml|json|jsonl|csv))$")
COMMENT = re.compile(r"<!--\s*(file|fragment of|exit code|output|slow|not run)\s*(?::\s*(.*?))?\s*-->", re.DOTALL)
SECONDS = re.compile(r"\d+\.\d+ s\b|\b\d+ s\b")
SIMPLE = re.compile(r"[^|&;<>$`*?(){}!\\\n]*")
LIMIT = 300
"""Seconds that one command of a page may take."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text, its line, and what the comment before it says."""

    language: str
    text: str
    line: int
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> str | None:
        """The file that the block is written to, or None."""
        named = NAMED.match(self.text.split("\n", 1)[0])
        return self.notes.get("file") or (named[1] if named else None)


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, those in lists included."""
    notes: dict[str, str] = {}
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            notes |= {key: value or "" for key, value in COMMENT.findall(token.content)}
        elif token.type == "fence":
            assert token.map is not None
            yield Block(token.info.split(" ")[0], token.content, token.map[0] + 1, notes)
            notes = {}
        elif token.type == "paragraph_open":
            notes = {}


def differs(expected: str, printed: str) -> bool:
    """Compare a page's output with what was printed: "..." stands in for any text, seconds are not compared."""
    expected, printed = (
        SECONDS.sub("0 s", re.sub(r"[ \t]+\n", "\n", text.strip() + "\n")) for text in (expected, printed)
    )
    pattern = ".*?".join(re.escape(part) for part in re.split(r"\.\.\.|…", expected.strip()))
    return re.fullmatch(pattern, printed.strip().replace("…", "..."), re.DOTALL) is None


def with_fragment(recipe: dict[str, Any], where: str, fragment: Any) -> dict[str, Any]:
    """Return a recipe with a fragment put in at a dotted path; stages replace those of the same `id`."""
    recipe = copy.deepcopy(recipe)
    if isinstance(fragment, list):
        fragment = {"stages": fragment}
    place: Any = recipe
    for name in where.split(".") if where else []:
        place = next(stage for stage in place if stage["id"] == name) if isinstance(place, list) else place[name]
    for key, value in fragment.items():
        if key == "stages":
            replaced = {stage["id"] for stage in value}
            place["stages"] = [stage for stage in place["stages"] if stage["id"] not in replaced] + value
        elif isinstance(value, dict) and isinstance(place.get(key), dict):
            place[key] = {**place[key], **value}
        else:
            place[key] = value
    return recipe


class Reader:
    """Follows one page in a folder."""

    def __init__(self, page: Path, folder: Path, python: WarmPython) -> None:
        self.page, self.folder, self.python = page, folder / "page", python
        self.names: dict[str, Any] = {"__name__": "page"}
        self.printed = ""
        self.faults: list[str] = []  # outputs that differ from the page's; the examples after them still run
        self.folder.mkdir()
        self.environment = self._commands(folder)

    def _commands(self, folder: Path) -> dict[str, str]:
        """Return an environment whose commands are this interpreter's; `pip install` works offline, into the folder."""
        site, path = folder / "site", folder / "bin"
        path.mkdir()
        offline = f'--no-index --no-deps --no-build-isolation --target "{site}"'
        for name, command in {
            "gemsmith": '-m gemsmith "$@"',
            "python": '"$@"',
            "pip": f'-m pip "$@" {offline}',
        }.items():
            (path / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {command}\n')
            (path / name).chmod(0o755)
        search = f"{path}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": search, "PYTHONPATH": str(site), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "COLUMNS": "100"}

    def follow(self, block: Block) -> None:
        """Do what a reader would do with the block, and fail with its line where the page is wrong."""
        where = f"{self.page.name}:{block.line}"
        if "not run" in block.notes:
            assert block.notes["not run"], f"{where}: say why the example is not run"
        elif block.file is not None:
            file = self.folder / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        elif "output" in block.notes:
            assert not differs(block.text, self.printed), f"{where}: the code before printed\n{self.printed}"
        elif block.language == "python":
            self._run_python(block, where)
        elif block.language in {"sh", "console"}:
            self._run_shell(block, where)
        elif block.language == "yaml":
            self._validate(block, where)
        else:
            assert block.language in SHOWN, f"{where}: `{block.language}` is not a language of examples"

    def _run_python(self, block: Block, where: str) -> None:
        before, printed = Path.cwd(), io.StringIO()
        os.chdir(self.folder)
        sys.path.insert(0, str(self.folder))
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile("\n" * (block.line) + block.text, str(self.page), "exec"), self.names)
        except Exception as error:
            raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
        finally:
            sys.path.remove(str(self.folder))
            os.chdir(before)
            self.printed = printed.getvalue()

    def _run_shell(self, block: Block, where: str) -> None:
        expected_code = int(block.notes.get("exit code", "0"))
        if block.language == "sh":
            code, printed = self._run(block.text)
            assert code == expected_code, f"{where}: exit code {code}\n{printed}"
            return
        for command, expected in re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE):
            code, printed = self._run(command)
            if differs(expected, printed):
                self.faults.append(f"{where}: `{command}` printed\n{printed}\nnot\n{expected}")
            if code != expected_code:
                self.faults.append(f"{where}: `{command}`: exit code {code}, not {expected_code}\n{printed}")

    def _run(self, command: str) -> tuple[int, str]:
        """Run one command; a plain `gemsmith ...` runs in a fork of a process that has imported torch."""
        if command.startswith("gemsmith ") and SIMPLE.fullmatch(command):
            words = ["-m", "gemsmith", *shlex.split(command)[1:]]
            done = self.python.run(words, self.folder, LIMIT, **self.environment)
        else:
            done = subprocess.run(
                ["bash", "-e", "-c", command], cwd=self.folder, env={**os.environ, **self.environment},
                capture_output=True, text=True, timeout=LIMIT, check=False,
            )  # fmt: skip
        return done.returncode, (done.stderr + done.stdout).replace(f"{self.folder}/", "")

    def _validate(self, block: Block, where: str) -> None:
        assert "fragment of" in block.notes, f"{where}: name the file of this YAML, or what it is a fragment of"
        name, _, place = block.notes["fragment of"].partition(" ")
        yaml = YAML(typ="safe")
        recipe = with_fragment(yaml.load(self.folder / name), place.strip(), yaml.load(block.text))
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            gemsmith.validate(recipe)
        except gemsmith.UserError as error:
            raise AssertionError(f"{where}: {error}") from error
        finally:
            os.chdir(before)


def follow(page: Path, folder: Path, python: WarmPython, slow: bool) -> int:
    """Follow a page from its first example to its last, and return the number of examples; slow ones where wanted."""
    reader, count = Reader(page, folder, python), 0
    for block in blocks(page):
        if slow or "slow" not in block.notes:
            reader.follow(block)
            count += 1
    assert not reader.faults, "\n".join(reader.faults)
    return count
