"""Templates such as "{question}" or "{metadata[expression]} =", filled from the columns of a row."""

import string
from collections.abc import Mapping
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.curation.sources.rows import SourceRow


class _Missing(Exception):
    """Error for a template that refers to a null value in this row."""


class _Formatter(string.Formatter):
    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        value, first = super().get_field(field_name, args, kwargs)
        if value is None:
            raise _Missing
        return value, first


def fill(template: str, row: SourceRow, *, name: str, field: str) -> str | None:
    """Fill a template from the row's columns; return None if a column that it refers to is null in this row.

    Args:
        template: text with {column}, {column[key]} or {column[0]}; literal braces are doubled.
        row: the row whose columns are used.
        name: name of the data section, for messages.
        field: name of the template's own field, for messages.

    Raises:
        UserError: the column or key is unknown, or the template is malformed; the message names the row and its
            columns.
    """
    try:
        return _Formatter().vformat(template, (), row.columns)
    except _Missing:
        return None
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(
            f"data {name}: `{field}: {template!r}` uses {_asked(error)}, which {row.where} does not have; "
            f"it has {_outline(row.columns)}."
        ) from error
    except ValueError as error:
        raise UserError(
            f"data {name}: `{field}: {template!r}` is not a template ({error}); "
            "write {column}, and double other braces."
        ) from error


def sole_value(template: str, row: SourceRow) -> Any:
    """Return the value itself if the template is exactly one column (or an entry of one); otherwise None."""
    try:
        parts = list(_Formatter().parse(template))
        if len(parts) != 1 or parts[0][0] or not parts[0][1] or parts[0][2] or parts[0][3]:
            return None
        return _Formatter().get_field(parts[0][1], (), row.columns)[0]
    except (_Missing, KeyError, IndexError, TypeError, AttributeError, ValueError):
        return None


def _asked(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r}"
    return f"a missing value ({error})"


def _outline(columns: Mapping[str, Any]) -> str:
    names = [
        f"{key}[{', '.join(map(str, value))}]" if isinstance(value, Mapping) else key for key, value in columns.items()
    ]
    return f"the columns {', '.join(names)}" if names else "no columns"
