"""Per-run overrides: the class that reads them, and the configuration with its overrides applied."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, create_model

from gemsmith.contracts.strict import StrictModel

Config = TypeVar("Config", bound=BaseModel)


def changes_of(
    name: str, module: str, *models: type[BaseModel], without: tuple[str, ...] = ("kind",)
) -> type[StrictModel]:
    """Create a class with the fields of all `models`, each optional; a field that is not set overrides nothing.

    Args:
        name: name of the class.
        module: module in which the class is assigned to that name.
        models: configurations; if several define a field, the first definition is used.
        without: fields that cannot be overridden.
    """
    fields: dict[str, Any] = {}
    for model in models:
        for field, info in model.model_fields.items():
            if field not in without and field not in fields:
                kind: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
                fields[field] = (kind | None, Field(None, description=info.description))
    return create_model(
        name, __base__=StrictModel, __module__=module, __doc__="Fields of `inner` that a run overrides.", **fields
    )


def given_by(change: BaseModel) -> dict[str, Any]:
    """Return the fields that an override sets, as plain values; null overrides too."""
    return change.model_dump(exclude_unset=True)


def changed(config: Config, given: Mapping[str, Any]) -> Config:
    """Return a copy of the configuration with some fields replaced; mappings, such as `sampling`, are merged by key.

    Raises:
        ValueError: the configuration has no such field, or the result is invalid; the message begins with the field if
            one is known.
    """
    if stray := [name for name in given if name not in type(config).model_fields]:
        raise ValueError(f"{stray[0]} is not a field of kind {getattr(config, 'kind', type(config).__name__)}")
    merged = config.model_dump(exclude_unset=True)
    for name, value in given.items():
        before = merged.get(name)
        merged[name] = {**before, **value} if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    try:
        return type(config).model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}") from error
