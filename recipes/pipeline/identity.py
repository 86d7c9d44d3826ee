"""The identity of a stage's result: a hash of everything that the result depends on, and of nothing else."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gemsmith.contracts.digests import content_digest
from gemsmith.contracts.strict import StrictModel
from gemsmith.curation.config import PythonData
from gemsmith.recipes.pipeline.files import former_fingerprint
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.rl.rewards.config import PythonReward

# Settings that change how a stage runs or what it logs, but not its result.
WITHOUT_EFFECT = frozenset(
    {"save_every", "log_every", "report_to", "time_limit"}
    | {"timeout", "gpu_memory", "cache_gib", "sleep", "mismatch_warning", "mismatch_limit"}
    | {"parallel"}
)
# Newer fields with the value that means what earlier versions did: left out of the hash with it, so that stages that
# were finished before the fields existed stay finished.
AS_BEFORE: Mapping[str, Any] = {"liti": None, "cut_off": "score", "cut_off_penalty": 1.0}
SHIPPED_DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Settings:
    """Parts of a recipe from which the identities of its stages are computed.

    Attributes:
        nodes: the stages, each after its inputs.
        data: the recipe's data sections by name.
        rewards: the recipe's rewards by name.
        engine: the recipe's engine.
        seed: the recipe's seed.
        root: the recipe's folder, for local files.
    """

    nodes: Sequence[Node]
    data: Mapping[str, Any]
    rewards: Mapping[str, Any]
    engine: Any
    seed: int
    root: Path


def identities(settings: Settings, begun: Callable[[str, str], bool] = lambda id, identity: True) -> dict[str, str]:
    """Return the identity of each stage by its id, as 64 hexadecimal digits.

    An identity covers the stage's configuration with its defaults filled in, the data sections and rewards that it
    uses, the identities of its input stages, the seed, the engine, the version of the stage kind's code, and the
    content of the local files and folders that these name. It leaves out the other stages, the recipe's name and
    WITHOUT_EFFECT.

    Args:
        settings: the recipe.
        begun: function of a stage's id and an identity that returns True if the run has a folder for the two. A stage
            that an older version began keeps the identity that it was given then.
    """
    found: dict[str, str] = {}
    for node in settings.nodes:
        found[node.id] = _identity(node, settings, found, content_digest)
        if not begun(node.id, found[node.id]) and _had_another(node, settings):
            former = _identity(node, settings, found, former_fingerprint)
            if begun(node.id, former):
                found[node.id] = former
    return found


def _had_another(node: Node, settings: Settings) -> bool:
    """Return True if an older version gave the stage another identity, with which its result is still the same.

    Older versions identified a model by the times of its files (`files.former_fingerprint`). They did not count data in
    a folder at all, so the data of such a stage may have changed since.
    """
    data = [path for name in node.data for path in settings.data[name].local_files(settings.root)]
    paths = [path for part in _parts(node, settings) for path in part.local_files(settings.root)]
    return any(path.is_dir() or path.suffix == ".gguf" for path in paths) and not any(path.is_dir() for path in data)


def _identity(node: Node, settings: Settings, known: Mapping[str, str], fingerprint_of: Callable[[Path], str]) -> str:
    content = {
        "stage": _plain(node.config),
        "version": type(node.config).version,
        "data": {name: _plain(settings.data[name]) for name in node.data},
        "rewards": {name: _plain(settings.rewards[name]) for name in node.rewards},
        "inputs": {name: known[name] for name in node.inputs},
        "seed": settings.seed,
        "engine": _plain(settings.engine),
        "files": [fingerprint_of(path) for part in _parts(node, settings) for path in part.local_files(settings.root)],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _parts(node: Node, settings: Settings) -> list[Any]:
    """Return the configurations that a stage's result depends on."""
    data = [settings.data[name] for name in node.data]
    return [node.config, *data, *(settings.rewards[name] for name in node.rewards)]


def _shipped_by_name(target: str) -> str:
    """Return "rows.py:make" for "data/rows.py:make" if `rows.py` is shipped, and any other target unchanged.

    Shipped recipes used these shorter names in earlier versions; stages finished then stay finished.
    """
    name = target.removeprefix("data/")
    return name if (SHIPPED_DATA / name.rpartition(":")[0]).is_file() else target


def _plain(value: Any) -> Any:
    """Return a configuration as plain JSON types, without the fields that have no effect on results."""
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields if name not in WITHOUT_EFFECT}
        if isinstance(value, PythonReward | PythonData):
            fields["target"] = _shipped_by_name(value.target)
        plain = {n: _plain(v) for n, v in fields.items() if n not in AS_BEFORE or v != AS_BEFORE[n]}
        return plain | (value.changed_results() if isinstance(value, StrictModel) else {})
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
