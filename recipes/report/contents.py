"""The content of a run's folder; missing files are allowed, because a run may be unfinished or have failed."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gemsmith.contracts.reading import as_object, log_rows, read_json, reading
from gemsmith.recipes.run.record import read_run
from gemsmith.recipes.schema.recipe import produced_by

REMEDY = "put it back from a copy, or run its stage again"


@dataclass(frozen=True)
class StageContents:
    """One stage of a run: its record, and access to the files that it has written so far."""

    id: str
    kind: str
    produces: str
    status: str
    seconds: float
    inputs: tuple[str, ...]
    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return the stage's configuration with all defaults; empty before the stage starts."""
        path = self.folder / "stage.json"
        with reading(path, "the record of a stage", REMEDY):
            return as_object(_mapping(path).get("config", {}))

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """Return the rows of `metrics.jsonl` that have a step."""
        return [row for row in log_rows(self.folder / "metrics.jsonl") if isinstance(row.get("step"), int)]

    @cached_property
    def estimators(self) -> dict[str, Any]:
        """Return the estimators of an RL stage's sampled metrics, and whether they are unbiased; empty for others."""
        return _mapping(self.folder / "estimators.json")

    def output(self, name: str) -> dict[str, Any]:
        """Return the content of a JSON file in the stage's output; empty if it is missing."""
        return _mapping(self.folder / "output" / name)

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Run a block that interprets a file of the stage's folder, such as "output/scores.json".

        Raises:
            UserError: the block failed, as the content of the file is not as expected.
        """
        with reading(self.folder / name, f"the file of stage {self.id}", REMEDY):
            yield

    def log_tail(self, lines: int = 12) -> str:
        """Return the last lines of the stage's log, which usually show why it failed."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(_text(logs[-1]).splitlines()[-lines:]) if logs else ""


@dataclass(frozen=True)
class RunContents:
    """The content of a whole run."""

    folder: Path
    name: str
    description: str
    seed: int
    started: str
    recipe: str
    environment: Mapping[str, Any]
    stages: tuple[StageContents, ...]

    def stage(self, id: str) -> StageContents | None:
        """Return the stage with the id `id`, or None."""
        return next((stage for stage in self.stages if stage.id == id), None)

    @cached_property
    def normalised(self) -> list[str]:
        """Return the names of the recipe's rewards that are normalised."""
        rewards = _document(self.recipe).get("rewards")
        named = rewards.items() if isinstance(rewards, dict) else ()
        return [
            name for name, reward in named if isinstance(reward, dict) and reward.get("normalise", "none") != "none"
        ]

    @property
    def seconds(self) -> float:
        """Return the duration of all stages together, over all their attempts."""
        return sum(stage.seconds for stage in self.stages)


def read_contents(folder: Path) -> RunContents:
    """Read a run's folder.

    Raises:
        UserError: the folder does not contain a run.
    """
    run = read_run(folder)
    recipe = _text(folder / "recipe.yaml")
    stages = (
        StageContents(
            id=stage["id"],
            kind=stage["kind"],
            produces=stage.get("produces") or produced_by(stage["kind"]),
            status=stage["status"],
            seconds=float(stage["seconds"] or 0.0),
            inputs=tuple(stage["inputs"]),
            folder=folder / stage["folder"],
        )
        for stage in run["stages"]
    )
    return RunContents(
        folder=folder,
        name=str(run["name"]),
        description=str(_document(recipe).get("description") or ""),
        seed=run["seed"],
        started=str(run["started"]),
        recipe=recipe,
        environment=_mapping(folder / "environment.json"),
        stages=tuple(stages),
    )


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects in a JSON lines file that a stage wrote at once; [] if it does not exist.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return []
    with reading(path, "JSON lines, one object each", REMEDY):
        return [as_object(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _document(recipe: str) -> dict[str, Any]:
    try:
        content = YAML(typ="safe").load(StringIO(recipe))
    except Exception:  # the parser raises many kinds; the page then shows the text, and goes without its fields
        return {}
    return content if isinstance(content, dict) else {}


def _mapping(path: Path) -> dict[str, Any]:
    return read_json(path, "a file that gemsmith wrote", REMEDY) if path.is_file() else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
