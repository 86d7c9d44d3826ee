"""The file of answers that a stage of kind generate keeps: one example a line, with its rewards."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.curation.example import Example
from gemsmith.curation.sources.json_lines import json_lines

FILE = "answers.jsonl"
_TEXTS = ("prompt", "system", "answer", "demonstration", "chosen", "rejected", "task")


def answer_row(example: Example, text: str, worse: str | None, measured: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the file: the example with the answer as its demonstration, then what was measured on the answer.

    Args:
        example: what was asked.
        text: the answer.
        worse: an answer to the same prompt that scored less, for a preference pair; None: there is none.
        measured: further fields, such as `reward`.
    """
    chosen = None if worse is None else text
    fields = {**vars(example), "demonstration": text, "chosen": chosen, "rejected": worse}
    row = {name: fields[name] for name in _TEXTS}
    return {**row, "history": [list(turn) for turn in example.history], "columns": example.columns, **measured}


def check_columns(examples: Iterable[Example], name: str) -> None:
    """Raise a UserError where a column's value is nothing that JSON can hold; `name` is the data section's."""
    for example in examples:
        for column, value in example.columns.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"data {name}: column {column!r} of {example.where} holds a {type(value).__name__}, which cannot "
                    "be written as JSON; leave it out of `columns`, or make it a number, a text or a list."
                ) from error


def read_answers(folder: Path) -> list[Example]:
    """The examples in the output of a stage of kind generate, in the order of its prompts.

    Raises:
        UserError: the file is not there, or a line is none that such a stage writes.
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{path} is not there; expected the answers that a stage of kind generate has written.")
    with path.open("rb") as file:
        return [_example(row.columns, row.where) for row in json_lines(file, str(path))]


def _example(row: Mapping[str, Any], where: str) -> Example:
    try:
        texts = {name: row[name] for name in _TEXTS}
        history = tuple((str(role), str(text)) for role, text in row["history"])
        return Example(**texts, columns=dict(row["columns"]), history=history, where=where)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: not a line that a stage of kind generate writes ({error}); run it again.") from error
