"""The file of answers that a `generate` stage writes: one example per line, with its rewards."""

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
    """Return one line of the file: the example with the answer as its demonstration, then the measurements of the
    answer.

    Args:
        example: the example whose prompt was answered.
        text: the answer.
        worse: an answer to the same prompt that scored less, for a preference pair; None without one.
        measured: further fields, such as `reward`.
    """
    chosen = None if worse is None else text
    fields = {**vars(example), "demonstration": text, "chosen": chosen, "rejected": worse}
    row = {name: fields[name] for name in _TEXTS}
    return {**row, "history": [list(turn) for turn in example.history], "columns": example.columns, **measured}


def check_columns(examples: Iterable[Example], name: str) -> None:
    """Raise a UserError if JSON cannot hold a column's value; `name` is the name of the data section."""
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
    """Return the examples in the output of a `generate` stage, in the order of its prompts.

    Raises:
        UserError: the file is missing, or a line was not written by such a stage.
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected the answers that a `generate` stage wrote.")
    with path.open("rb") as file:
        return [_example(row.columns, row.where) for row in json_lines(file, str(path))]


def _example(row: Mapping[str, Any], where: str) -> Example:
    try:
        texts = {name: row[name] for name in _TEXTS}
        history = tuple((str(role), str(text)) for role, text in row["history"])
        return Example(**texts, columns=dict(row["columns"]), history=history, where=where)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: not a line of a `generate` stage ({error}); run that stage again.") from error
