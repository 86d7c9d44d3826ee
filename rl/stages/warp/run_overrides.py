"""Runs that differ: a configuration with some of its fields changed, and the class that such changes are read by."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, create_model

from gemsmith.contracts.strict import StrictModel

Config = TypeVar("Config", bound=BaseModel)


def changes_of(
    name: str, module: str, *models: type[BaseModel], without: tuple[str, ...] = ("kind",)
) -> type[StrictModel]:
    """A class with the fields of all `models`, each of which may be left out; nothing leaves it as it is.

    Args:
        name: of the class.
        module: where the class stands under that name.
        models: where fields of one name differ, the first model's is taken.
        without: fields that may not change.
    """
    fields: dict[str, Any] = {}
    for model in models:
        for field, info in model.model_fields.items():
            if field not in without and field not in fields:
                kind: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
                fields[field] = (kind | None, Field(None, description=info.description))
    return create_model(
        name, __base__=StrictModel, __module__=module, __doc__="What a run changes of `inner`.", **fields
    )


def given_by(change: BaseModel) -> dict[str, Any]:
    """Return the fields that a change sets, as plain values; one that is set to null is null in its run."""
    return change.model_dump(exclude_unset=True)


def changed(config: Config, given: Mapping[str, Any]) -> Config:
    """The configuration with other values of some fields; a mapping, such as `sampling`, changes the keys that it has.

    Raises:
        ValueError: the configuration has no such field, or the result is none; the message begins with the field,
            where there is one.
    """
    if stray := [name for name in given if name not in type(config).model_fields]:
        raise ValueError(f"{stray[0]} is no field of kind {getattr(config, 'kind', type(config).__name__)}")
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
