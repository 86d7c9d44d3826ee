"""Checks of docstrings and comments that ruff has no rule for; `make lint` runs them.

Three checks, over all Python files (comments: over the packages in `DENSE`) and, for phrases, the documentation too:

- a docstring begins with a verb or a noun, not with a clause such as "What ..." or "Whether ...";
- phrases that readers had to decode do not come back;
- dense code has comments.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEADLESS = re.compile(r"(What|Whether|Of|Which|As|How|Where|Whoever|The same)\b")
HIGHEST_SHARE = 0.02
"""Share of docstrings that may match `HEADLESS`: a few are right, such as a class called `Of...`."""

PHRASES = re.compile(
    r"\b(is|are|was|were|be|been) told\b|(?<!there )\b(is|are|was|be) no (number|folder|file|list|text)\b"
    r"|\bfor each of which\b"
    r"|\bthe house\b|\bits room\b|\brooms? of\b|\bsaid of\b|\bstands? (before|in(?! for)|under|where|beside)\b"
    r"|\bwhoever\b|\bhad a hand in\b|\ba belt to\b",
    re.IGNORECASE,
)
"""Phrases that docstrings, comments, messages and pages do not use."""

DENSE = (
    "rl/rollouts",
    "policy/samplers",
    "policy/training/sequence_parallel.py",
    "sandboxes/code/backends",
    "sandboxes/code/jail",
)
"""Code that needs comments: files or folders, from the root of the repository."""

LEAST_COMMENTS = 3.0
"""Comment lines per 100 lines of code (blank lines and docstrings left out) that each of `DENSE` has at least."""


@dataclass(frozen=True)
class Fault:
    """One place that fails a check."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring of a module, its classes and functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield first.lineno, first.value.value.strip()


def headless(path: Path, source: str) -> tuple[list[Fault], int]:
    """Return the docstrings that begin with a clause, and the number of all docstrings."""
    found = list(docstrings(source))
    faults = [Fault(path, line, text.splitlines()[0]) for line, text in found if HEADLESS.match(text)]
    return faults, len(found)


def phrases(path: Path, source: str) -> list[Fault]:
    """Return the lines that contain one of `PHRASES`."""
    numbered = enumerate(source.splitlines(), 1)
    return [Fault(path, number, line.strip()) for number, line in numbered if PHRASES.search(line)]


def comments_per_100_lines(sources: list[str]) -> float:
    """Return the comment lines per 100 lines of code; docstrings and blank lines are neither."""
    comments = code = 0
    for source in sources:
        lines = source.splitlines()
        skipped: set[int] = set()
        for node in ast.walk(ast.parse(source)):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                skipped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        for number, line in enumerate(lines, 1):
            if number in skipped or not line.strip():
                continue
            if line.lstrip().startswith("#"):
                comments += 1
            else:
                code += 1
    return 100 * comments / max(code, 1)


def tracked(root: Path) -> list[Path]:
    """Return the Python and Markdown files of the repository that git does not ignore."""
    command = ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.py", "*.md"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    return [Path(name) for name in names if name and (root / name).is_file() and not (root / name).is_symlink()]


def check(root: Path) -> list[str]:
    """Run all checks, print their counts, and return the lines that say what failed."""
    files = {path: (root / path).read_text(encoding="utf-8") for path in tracked(root)}
    python = {path: source for path, source in files.items() if path.suffix == ".py"}
    failures: list[str] = []

    clauses: list[Fault] = []
    count = 0
    for path, source in python.items():
        faults, all_of_file = headless(path, source)
        clauses += faults
        count += all_of_file
    share = len(clauses) / max(count, 1)
    print(
        f"english: {len(clauses)} of {count} docstrings begin with a clause ({share:.1%}; at most {HIGHEST_SHARE:.0%})"
    )
    if share > HIGHEST_SHARE:
        failures += [f"{fault} (begin with a verb or a noun)" for fault in clauses]

    own = {Path("tools/english.py"), Path("tests/test_english.py")}
    idioms = [fault for path, source in files.items() if path not in own for fault in phrases(path, source)]
    print(f"english: {len(idioms)} lines with phrases to avoid (at most 0)")
    failures += [f"{fault} (write it plainly)" for fault in idioms]

    for place in DENSE:
        inside = Path(place)
        sources = [source for path, source in python.items() if path == inside or inside in path.parents]
        density = comments_per_100_lines(sources)
        print(f"english: {place} has {density:.1f} comment lines per 100 lines of code (at least {LEAST_COMMENTS:g})")
        if not sources or density < LEAST_COMMENTS:
            failures.append(f"{place}: add comments that say why, not what")
    return failures


def main() -> int:
    """Print every failure and return the exit code."""
    failures = check(Path(__file__).resolve().parent.parent)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
