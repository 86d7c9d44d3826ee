"""The identity of a stage's result: a hash of everything that the result depends on, and of nothing else."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gemsmith.curation.config import PythonData
from gemsmith.recipes.pipeline.files import fingerprint
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.rl.rewards.config import PythonReward

# Settings that change how a stage runs or what it logs, but not its result.
WITHOUT_EFFECT = frozenset(
    {"save_every", "log_every", "report_to", "time_limit"}
    | {"timeout", "gpu_memory", "cache_gib", "sleep", "mismatch_warning", "mismatch_limit"}
    | {"parallel"}
)
# Newer optional fields: left out of the hash if unset, so that stages finished before they existed stay finished.
WITHOUT_EFFECT_IF_NONE = frozenset({"liti"})
SHIPPED_DATA = Path(__file__).parents[1] / "data"


def identities(
    nodes: Sequence[Node], data: Mapping[str, Any], rewards: Mapping[str, Any], engine: Any, seed: int, root: Path
) -> dict[str, str]:
    """Return the identity of each stage by its id, as 64 hexadecimal digits.

    An identity covers the stage's configuration with its defaults filled in, the data sections and rewards that it
    uses, the identities of its input stages, the seed, the engine, the version of the stage kind's code, and the
    content of the local files that these name. It leaves out the other stages, the recipe's name and WITHOUT_EFFECT.

    Args:
        nodes: the stages, each after its inputs.
        data: the recipe's data sections by name.
        rewards: the recipe's rewards by name.
        engine: the recipe's engine.
        seed: the recipe's seed.
        root: the recipe's folder, for local files.
    """
    known: dict[str, str] = {}
    for node in nodes:
        parts = [node.config, *(data[name] for name in node.data), *(rewards[name] for name in node.rewards)]
        content = {
            "stage": _plain(node.config),
            "version": node.config.results_version,
            "data": {name: _plain(data[name]) for name in node.data},
            "rewards": {name: _plain(rewards[name]) for name in node.rewards},
            "inputs": {name: known[name] for name in node.inputs},
            "seed": seed,
            "engine": _plain(engine),
            "files": [fingerprint(path) for part in parts for path in part.local_files(root)],
        }
        known[node.id] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return known


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
        return {n: _plain(v) for n, v in fields.items() if v is not None or n not in WITHOUT_EFFECT_IF_NONE}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
