"""Rows of demonstrations, as a teacher is asked about them."""

from collections.abc import Mapping, Sequence
from typing import Any

from rl.teachers.teacher import Row


def teaching_rows(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """What `rl.sft.demonstration_tokens` gives, numbered."""
    return [Row(row["prompt"], row["completion"], number, row.get("task")) for number, row in enumerate(rows)]
