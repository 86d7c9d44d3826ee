"""What identifies a stage's result: a hash of everything that it depends on, and of nothing else."""

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

# Settings that change how a stage runs and is watched, and not what comes out of it.
WITHOUT_EFFECT = frozenset(
    {"save_every", "log_every", "report_to", "time_limit"}
    | {"timeout", "gpu_memory", "cache_gib", "sleep", "mismatch_warning", "mismatch_limit"}
    | {"parallel"}
)
# Fields that a recipe may do without, and which leave a stage what it was before they were thought of.
WITHOUT_EFFECT_IF_NONE = frozenset({"liti"})
SHIPPED_DATA = Path(__file__).parents[1] / "data"


def identities(
    nodes: Sequence[Node], data: Mapping[str, Any], rewards: Mapping[str, Any], engine: Any, seed: int, root: Path
) -> dict[str, str]:
    """The identity of each stage, as 64 hexadecimal digits.

    It covers the stage's own configuration with its defaults filled in, the data sections and rewards that it uses, the
    identities of the stages that it builds on, the seed, the engine, the version of the kind's code, and the content of
    the local files that these name. It leaves out the other stages, the recipe's name and WITHOUT_EFFECT.

    Args:
        nodes: in the order of their edges.
        root: the recipe's folder, for local files.
    """
    known: dict[str, str] = {}
    for node in nodes:
        parts = [node.config, *(data[name] for name in node.data), *(rewards[name] for name in node.rewards)]
        content = {
            "stage": _plain(node.config),
            "version": type(node.config).version,
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
    """Return "rows.py:make" for "data/rows.py:make", if `rows.py` is shipped, and any other target unchanged.

    Shipped recipes named these files so before they lay in a folder; finished stages of that time stay finished.
    """
    name = target.removeprefix("data/")
    return name if (SHIPPED_DATA / name.rpartition(":")[0]).is_file() else target


def _plain(value: Any) -> Any:
    """A configuration as JSON's own types, without what has no effect on results."""
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
