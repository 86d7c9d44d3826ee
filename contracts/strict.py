"""The base of every configuration class: immutable, and unknown keys are errors."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A configuration that refuses unknown keys and wrong types, and cannot be changed after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, populate_by_name=True)
