"""The base of every configuration class: immutable, and unknown keys are errors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A configuration that rejects unknown keys and wrong types and is immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, populate_by_name=True)

    def local_files(self, root: Path) -> list[Path]:
        """Return the files and folders of this disk that the configuration reads, where they exist, in field order.

        Their content is part of the identity of a stage that has the configuration. A class whose own fields name a
        file overrides this; by default the files are those of the configurations in its fields.

        Args:
            root: the recipe's folder, against which relative paths resolve.
        """
        return [path for name in type(self).model_fields for path in _files_in(getattr(self, name), root)]

    def changed_results(self) -> dict[str, Any]:
        """Return what the identity of a stage with this configuration holds besides its fields; empty by default.

        A class returns something for the settings whose results a change of the code has changed. Stages with other
        settings stay finished, which raising a stage's `version` would not allow.
        """
        return {}


def _files_in(value: Any, root: Path) -> list[Path]:
    """Return the files of the configurations in a field's value, however deep in lists and mappings."""
    if isinstance(value, StrictModel):
        return value.local_files(root)
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [path for item in items for path in _files_in(item, root)]
