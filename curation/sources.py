"""Where rows come from: reasoning-gym tasks, JSON lines, hub data sets, functions. Libraries are imported when used."""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.local import find_local
from gemsmith.contracts.target import resolve_target
from gemsmith.curation.config import DataConfig, HubData, JsonLinesData, PythonData, ReasoningGymData
from gemsmith.sandboxes.child import Child, ChildError


@dataclass(frozen=True)
class SourceRow:
    """Columns of one row, and where it stands, for messages."""

    where: str
    columns: Mapping[str, Any]


def rows_of(config: DataConfig, *, name: str, seed: int, root: Path) -> Iterator[SourceRow]:
    """The rows of a data section in their order.

    Args:
        config: the section.
        name: its name, for messages.
        seed: seed of procedural sources.
        root: folder of the recipe.

    Raises:
        UserError: the source is not there or not readable; says which and where.
    """
    if isinstance(config, ReasoningGymData):
        return _reasoning_gym(config, name, seed)
    if isinstance(config, JsonLinesData):
        return _json_lines(config, name, root)
    if isinstance(config, HubData):
        return _hub(config, name)
    if isinstance(config, PythonData):
        return _python(config, name, seed, root)
    raise TypeError(f"no reader for {type(config).__name__}")


def resolve_path(path: str, root: Path) -> Path:
    """A path of the recipe: absolute, beside the recipe, or else in the working folder."""
    return find_local(root, path) or Path(path).expanduser()


def _reasoning_gym(config: ReasoningGymData, name: str, seed: int) -> Iterator[SourceRow]:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if config.task not in DATASETS:
        raise UserError(
            f"data {name}: reasoning-gym has no task {config.task!r}{_nearest(config.task, DATASETS)}; "
            f"`task` must be one of its {len(DATASETS)} tasks."
        )
    settings = {"seed": seed, **config.options, "size": config.size}
    try:
        items = reasoning_gym.create_dataset(config.task, **settings)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(
            f"data {name}: task {config.task} refused its options {config.options}: {error or type(error).__name__}; "
            "see the task's configuration in reasoning-gym."
        ) from error
    return _items(items, config, name)


def _items(items: Any, config: ReasoningGymData, name: str) -> Iterator[SourceRow]:
    for index in range(config.size):
        try:
            columns = items[index]
        except Exception as error:  # whatever a task's generator raises, its options are what can be mended
            raise UserError(
                f"data {name}: task {config.task} could not make item {index} with options {config.options} "
                f"({type(error).__name__}: {error}); change its options or `size`."
            ) from error
        yield SourceRow(f"{config.task} item {index}", columns)


def _json_lines(config: JsonLinesData, name: str, root: Path) -> Iterator[SourceRow]:
    path = resolve_path(config.path, root)
    if not path.is_file():
        found = "is a folder, not a file" if path.is_dir() else "does not exist"
        folders = {(root / config.path).parent, path.parent}
        files = [entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir()]
        raise UserError(
            f"data {name}: {config.path} {found} (looked in {root.resolve()} and the working folder)"
            f"{_nearest(path.name, files)}; `path` must be a JSON lines file."
        )
    return _lines(path)


def _lines(path: Path) -> Iterator[SourceRow]:
    with path.open("rb") as file:
        yield from json_lines(file, str(path))


def json_lines(file: Iterable[bytes], name: str) -> Iterator[SourceRow]:
    """The rows of an open JSON lines file, one object a line; blank lines are passed over.

    Raises:
        UserError: a line is something else; names it as `name`:number.
    """
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            columns = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 text ({error.reason}); save the file as UTF-8.") from error
        except json.JSONDecodeError as error:
            raise UserError(
                f"{where}, column {error.colno}: not valid JSON ({error.msg}); expected one JSON object a line."
            ) from error
        except RecursionError as error:
            raise UserError(f"{where}: nested too deeply; expected one flat JSON object a line.") from error
        if not isinstance(columns, dict):
            raise UserError(f"{where}: found a JSON {_json_kind(columns)}; expected one JSON object a line.")
        yield SourceRow(where, columns)


def _hub(config: HubData, name: str) -> Iterator[SourceRow]:
    import datasets

    try:
        table = datasets.load_dataset(config.name, config.subset, split=config.split, revision=config.revision)
    except Exception as error:  # the hub client raises many unrelated kinds
        raise UserError(f"data {name}: {_hub_reason(config, error)}") from error
    return (SourceRow(f"{config.name} row {index}", row) for index, row in enumerate(table))


def _hub_reason(config: HubData, error: Exception) -> str:
    said = " ".join(str(error).split())[:300] or type(error).__name__
    kinds = {kind.__name__ for cause in _causes(error) for kind in type(cause).__mro__}
    if kinds & {
        "ConnectionError",
        "OfflineModeIsEnabled",
        "LocalEntryNotFoundError",
        "ConnectError",
        "TimeoutException",
    }:
        return (
            f"the hub data set {config.name} cannot be reached from here and is not in the local cache ({said}); "
            "check the network and HF_HUB_OFFLINE, or save the data as JSON lines and use `source: jsonl`."
        )
    part = f"{config.name}{f', subset {config.subset}' if config.subset else ''}, split {config.split}"
    return f"the hub data set {part} could not be read ({said}); check `name`, `subset`, `split` and your access to it."


def _python(config: PythonData, name: str, seed: int, root: Path) -> Iterator[SourceRow]:
    """The rows of a function, made in a child process, which is stopped at the time limit."""
    try:
        target = resolve_target(config.target, root)
    except UserError as error:
        raise UserError(f"data {name}: {error}") from error
    try:
        keywords = json.dumps({"seed": seed, **config.options})
    except (TypeError, ValueError) as error:
        raise UserError(f"data {name}: `options` must be plain YAML values ({error}).") from error
    try:
        child = Child(
            "gemsmith.curation.python_rows:open_rows",
            [*target.arguments(root), keywords],
            environment={"PYTHONHASHSEED": "0"},
        )
        try:
            answer = json.loads(child.call(b"", config.time_limit))
        finally:
            child.kill()
    except ChildError as error:
        raise UserError(
            f"data {name}: {config.target} made no rows: its process {error}; mend it, or raise `time_limit`."
        ) from error
    if "fault" in answer:
        raise UserError(
            f"data {name}: {config.target} made no rows: {answer['fault']}; it is called as f(seed=..., **options) and "
            "must return dicts of plain values."
        )
    return (SourceRow(f"{config.target} row {number}", row) for number, row in enumerate(answer["rows"]))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {near[0]}?" if near else ""


def _json_kind(value: Any) -> str:
    kinds = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return kinds[type(value)]
