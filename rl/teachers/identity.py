"""Identity of a teacher: a hash of its weights and of every setting that changes its outputs."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gemsmith.contracts.stage import Stage
from gemsmith.policy.loading.load import weights_source
from gemsmith.rl.teachers.config import ShareConfig, TeacherConfig

SETTINGS = ("size", "dtype", "quantise", "rope")
WEIGHTS = (".safetensors", ".gguf", ".bin")


def teachers_identity(shares: Sequence[ShareConfig], stage: Stage) -> str:
    """Return one identity for all teachers of a stage, their tasks and weights; for a single teacher, its own."""
    if len(shares) == 1 and not shares[0].tasks:
        return teacher_identity(shares[0].teacher, stage)
    parts = [[teacher_identity(share.teacher, stage), sorted(share.tasks), share.weight] for share in shares]
    return _hash(parts)


def teachers_name(shares: Sequence[ShareConfig]) -> str:
    """Return the teachers' names and tasks as readable text."""
    return ", ".join(
        share.teacher.name + (f" ({' and '.join(share.tasks)})" if share.tasks else "") for share in shares
    )


def teacher_identity(config: TeacherConfig, stage: Stage) -> str:
    """Return the identity of one teacher that is not a store: 64 hexadecimal digits, independent of file paths.

    Local weights are read and hashed. For a hub id or a server, only the name is hashed.
    """
    if config.weights is None:
        return _hash(["server", config.model])
    settings = {name: _plain(getattr(config, name)) for name in SETTINGS}
    source = weights_source(config.weights, stage.inputs, stage.root)
    if source == "tiny":
        return _hash(["tiny", stage.seed, settings])
    return _hash([_content(source) if isinstance(source, Path) else source, {**settings, "size": None}])


def _content(source: Path) -> list[list[str]]:
    """Return [name, SHA-256] of each weight file in a folder, or of a single file."""
    files = [source] if source.is_file() else sorted(f for f in source.iterdir() if f.suffix in WEIGHTS)
    entries = []
    for file in files:
        with file.open("rb") as content:
            entries.append(["" if file == source else file.name, hashlib.file_digest(content, "sha256").hexdigest()])
    return entries


def _plain(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
