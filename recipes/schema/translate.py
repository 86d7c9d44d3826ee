"""Translate pydantic's errors to recipe terms: the field, the value found, the values expected, the nearest name."""

import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from gemsmith.contracts.planning import Keys
from gemsmith.contracts.suggestions import did_you_mean, listed
from gemsmith.recipes.schema.faults import Faults


def add_faults(faults: Faults, model: type[BaseModel], error: ValidationError, document: Any) -> None:
    """Add a line to `faults` for each field in `error`.

    pydantic reports one error per accepted type of a field; they become one line that lists all of them.
    """
    by_field: dict[Keys, list[tuple[str, str, str]]] = {}
    for detail in error.errors(include_url=False):
        keys, owner, annotation = _trace(model, detail["loc"])
        text = _describe(dict(detail), owner, annotation, keys)
        if detail["type"].startswith("union_tag"):
            keys = (*keys, _discriminator(dict(detail)))
        by_field.setdefault(keys, []).append(text)
    for keys, texts in by_field.items():
        found = {text[0] for text in texts}
        expected = list(dict.fromkeys(text[1] for text in texts if text[1]))
        hint = next((text[2] for text in texts if text[2]), "")
        wanted = f", expected {' or '.join(expected)}" if expected else ""
        faults.add(keys, "; ".join(sorted(found)) + wanted + hint)


def field_names(model: type[BaseModel]) -> list[str]:
    """Return the keys that a model accepts in a recipe."""
    return [info.alias or name for name, info in model.model_fields.items()]


def _describe(
    detail: dict[str, Any], owner: type[BaseModel] | None, annotation: Any, keys: Keys
) -> tuple[str, str, str]:
    """Return what was found, what was expected, and a hint, for one of pydantic's errors."""
    kind, context, found = detail["type"], detail.get("ctx", {}), f"found {_shown(detail['input'])}"
    if kind == "extra_forbidden":
        known = field_names(owner) if owner else []
        hint = did_you_mean(keys[-1], known)
        return (
            f'found the unknown key "{keys[-1]}"',
            f"one of {listed(known, 8 if hint else 40)}" if known else "",
            hint,
        )
    if kind == "missing":
        fields = owner.model_fields.items() if owner else ()
        meaning = next((info.description for name, info in fields if keys[-1] in (name, info.alias)), None)
        return "this key is missing and has no default" + (f" ({meaning.rstrip('.')})" if meaning else ""), "", ""
    if kind.startswith("union_tag"):
        choices = [str(tag) for option in _options(annotation) for tag in _tags(option, _discriminator(detail))]
        tag = context.get("tag")
        if tag is None:
            found = "found no such key" if isinstance(detail["input"], dict) else found
        else:
            found = f'found "{tag}"'
        return found, f"one of {listed(choices, 40)}", did_you_mean(tag, choices)
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        return found, context["expected"].replace("'", ""), did_you_mean(detail["input"], choices)
    if kind == "value_error":
        return detail["msg"].removeprefix("Value error, "), "", ""
    if kind == "string_pattern_mismatch":
        return found, f"text that matches {context['pattern']}", ""
    if kind in ("too_short", "too_long"):
        few, bound = (
            ("least", context.get("min_length")) if kind == "too_short" else ("most", context.get("max_length"))
        )
        return found, f"at {few} {bound} item{'' if bound == 1 else 's'}", ""
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return found, "a mapping", ""
    return found, _expectation(detail["msg"]), _quoting_hint(kind, detail["input"])


def _quoting_hint(kind: str, found: Any) -> str:
    """Return a hint for a template such as {question}: without quotes, YAML reads it as a mapping without values."""
    if kind != "string_type" or not isinstance(found, dict) or not found or any(found.values()):
        return ""
    return f'; put templates in quotes: "{{{", ".join(map(str, found))}}}"'


def _discriminator(detail: dict[str, Any]) -> str:
    return str(detail["ctx"]["discriminator"]).strip("'")


def _expectation(message: str) -> str:
    """Return the expectation in one of pydantic's messages: "an integer" for "Input should be a valid integer"."""
    words = re.sub(r"^(Input|List|String|Dictionary|Value) should (be )?", "", message)
    words = re.sub(r"^(greater|less)", r"a number \1", words)
    return words.replace("a valid ", "a ").replace("a integer", "an integer").replace("a string", "text")


def _shown(value: Any) -> str:
    """Return a value as text of at most 60 characters, as it would look in a recipe."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _trace(model: Any, location: tuple[str | int, ...]) -> tuple[Keys, type[BaseModel] | None, Any]:
    """Resolve pydantic's location of an error to the keys in the document, the enclosing model and the field's type.

    The location also contains the tag of each union on the way, which is not a key of the document.
    """
    keys: Keys = ()
    current: Any = model
    owner: type[BaseModel] | None = None
    for part in location:
        options = _options(current)
        if len(options) > 1:
            current = next((option for option in options if part in _tags(option)), None)
            owner = current or owner
            continue
        current = options[0] if options else None
        if _is_model(current):
            owner = current
            current = next((i.annotation for name, i in current.model_fields.items() if part in (name, i.alias)), None)
        else:
            arguments = get_args(current)
            current = arguments[-1] if arguments and get_origin(current) in (list, dict) else None
        if part != "[key]":
            keys = (*keys, part)
    return keys, owner, current


def _options(annotation: Any) -> list[Any]:
    """Return the types that an annotation allows, without None and without the metadata of Annotated."""
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [option for argument in get_args(annotation) for option in _options(argument)]
    return [] if annotation is type(None) else [annotation]


def _tags(option: Any, name: str | None = None) -> list[Any]:
    """Return the values of a model's literal fields, or of the field `name`; one of them is its tag in a union."""
    if not _is_model(option):
        return []
    fields = option.model_fields.items()
    literals = [i.annotation for n, i in fields if get_origin(i.annotation) is Literal and name in (None, n)]
    return [value for literal in literals for value in get_args(literal)]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
