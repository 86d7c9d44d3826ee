"""Extraction of the program from a completion, by code fences only; nothing is parsed or run here.

The search starts after </think>. Of the closed fenced blocks it selects the last one that defines a requested function,
else the last one in Python, else the last one. Without a fence, a completion of a code prompt (HumanEval) continues
that prompt, and any other completion is the program as a whole. A block that is never closed was cut off: no program.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

PYTHON = frozenset({"python", "python3", "py", "py3"})
_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})([^`]*)$")  # one pass over a line, whatever stands on it
_INDENT = "    "


@dataclass(frozen=True)
class Block:
    """A fenced block of code; `language` is the first word after the fence, in lower case."""

    language: str
    text: str
    closed: bool


@dataclass(frozen=True)
class Continuation:
    """The code prompt that a completion continues.

    Attributes:
        prompt: the code, which ends inside the function to be written.
        function: name of that function.
        preamble: imports and helper functions of the prompt, without that function.
    """

    prompt: str
    function: str
    preamble: str = ""


def find_program(completion: str, functions: Sequence[str] = (), continues: Continuation | None = None) -> str | None:
    """Return the program of a completion, or None if it has none.

    A block that contains the whole function of a code prompt gets the prompt's imports and helpers; a block that
    contains only the body continues the prompt, and is indented if necessary. A lone closing fence ends a block that
    the prompt had opened: the program is the text before it.

    Args:
        completion: the policy's completion.
        functions: names that the tests call; of several blocks the last one that defines one of them is selected.
        continues: the code that the completion continues if it has no fence.
    """
    text = _answer(completion)
    if text is None:
        return None
    blocks = fenced_blocks(text)
    if not blocks:
        program = text if continues is None else continues.prompt + text
        return program if text.strip() else None
    if not blocks[-1].closed:
        opened_before = len(blocks) == 1 and not blocks[0].language and not blocks[0].text.strip()
        if not opened_before:
            return None
        code = text[: _last_fence(text)]
    else:
        code = _chosen(blocks, [continues.function] if continues else functions).text
    if not code.strip():
        return None
    return code if continues is None else _joined(code, continues)


def fenced_blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a text in order, as in Markdown; content loses the indentation of its opening
    fence.
    """
    blocks: list[Block] = []
    lines: list[str] = []
    opening: re.Match[str] | None = None
    for line in text.splitlines(keepends=True):
        fence = _FENCE.match(line.rstrip("\r\n"))
        if opening is None:
            opening, lines = fence, []
        elif fence and fence[2].startswith(opening[2]) and not fence[3].strip():
            blocks.append(_block(opening, lines, closed=True))
            opening = None
        else:
            lines.append(_unindented(line, len(opening[1])))
    if opening is not None:
        blocks.append(_block(opening, lines, closed=False))
    return blocks


def defines(code: str, function: str) -> bool:
    """Return True if a line at the outer level defines or assigns this name."""
    name = re.escape(function)
    return re.search(rf"^(?:async[ \t]+)?def[ \t]+{name}[ \t]*\(|^{name}[ \t]*=(?!=)", code, re.MULTILINE) is not None


def _answer(completion: str) -> str | None:
    """Return the text after the thinking; None if the thinking never ends."""
    _, closing, after = completion.rpartition("</think>")
    return None if "<think>" in after else after if closing else completion


def _chosen(blocks: Sequence[Block], functions: Sequence[str]) -> Block:
    defining = [block for block in blocks if any(defines(block.text, function) for function in functions)]
    python = [block for block in blocks if block.language in PYTHON]
    return (defining or python or list(blocks))[-1]


def _joined(code: str, continues: Continuation) -> str:
    if defines(code, continues.function):
        alone = not continues.preamble or "__future__" in code
        return code if alone else f"{continues.preamble}\n\n{code}"
    first = next(line for line in code.splitlines() if line.strip())
    if not first.startswith((" ", "\t")):
        code = "".join(_INDENT + line if line.strip() else line for line in code.splitlines(keepends=True))
    return f"{continues.prompt.rstrip()}\n{code}"


def _block(opening: re.Match[str], lines: Sequence[str], closed: bool) -> Block:
    words = opening[3].split()
    return Block(words[0].lower() if words else "", "".join(lines), closed)


def _unindented(line: str, width: int) -> str:
    margin = line[:width]
    return line[width:] if not margin.strip() else line.lstrip(" \t")


def _last_fence(text: str) -> int:
    """Return the start of the last line that is a fence."""
    start = position = 0
    for line in text.splitlines(keepends=True):
        if _FENCE.match(line.rstrip("\r\n")):
            start = position
        position += len(line)
    return start
