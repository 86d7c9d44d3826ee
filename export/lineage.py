"""The history of a policy, read from the run folder that contains its own folder."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemsmith.contracts.reading import as_object, reading
from gemsmith.policy.config import PolicyConfig

REMEDY = "put it back from a copy, or run its stage again"


@dataclass(frozen=True)
class Ancestor:
    """A stage that produced a policy, or that one of those stages used."""

    id: str
    kind: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Lineage:
    """The history of a policy; everything is empty for a folder that no run wrote.

    Attributes:
        run: name of the run.
        seed: the recipe's seed.
        stages: the stages behind the policy in the order they ran; its own is the last.
        folders: output folder of every stage of the run.
        recipe: text of the resolved recipe.
        scores: content of the newest finished evaluation that includes the policy.
        liti: rate of the policy's point on the last stage's line; None for the stage's own output.
    """

    run: str = ""
    seed: int = 0
    stages: tuple[Ancestor, ...] = ()
    folders: Mapping[str, Path] = field(default_factory=dict)
    recipe: str = ""
    scores: Mapping[str, Any] | None = None
    liti: float | None = None

    @property
    def title(self) -> str:
        """Return a name for the policy from the run, the stage and the point of its line."""
        point = "" if self.liti is None else f"-liti-{self.liti:g}"
        return f"{self.run}-{self.stages[-1].id}{point}"

    @property
    def start(self) -> PolicyConfig | None:
        """Return the name of the weights that the policy's own stage started from."""
        policy = self.stages[-1].config.get("policy") if self.stages else None
        return PolicyConfig.model_validate(policy) if policy else None

    @property
    def origins(self) -> list[str]:
        """Return the names of all weights from outside the run: those that policies and teachers were first loaded
        from.
        """
        return list(dict.fromkeys(name for stage in self.stages for name in _models(stage.config)))


def read_lineage(folder: Path, liti: float | None = None) -> Lineage:
    """Return the history of the policy in `folder`, which is `<run>/stages/<stage>/output` if a run wrote it.

    With `liti`, return that of a point of the stage's line; an evaluation names it `<stage>@<liti>`.
    """
    folder = folder.resolve()
    own, run = folder.parent / "stage.json", folder.parents[2] if len(folder.parts) > 3 else folder
    if not own.is_file() or not (run / "run.json").is_file():
        return Lineage()
    with reading(run / "run.json", "the record of a run", REMEDY):
        content = json.loads((run / "run.json").read_text(encoding="utf-8"))
        for stage in content["stages"]:
            as_object(stage, ("id", "kind", "folder", "status"))
        records = {stage["id"]: _record(run / stage["folder"]) for stage in content["stages"]}
    own_record = _record(folder.parent)  # the folder that was asked for, even if the recipe has moved on since
    with reading(own, "the record of a stage", REMEDY):
        name = own_record["id"]
        records[name] = own_record
    behind = _behind(name, records)
    recipe = run / "recipe.yaml"
    return Lineage(
        run=content["name"],
        seed=content["seed"],
        stages=tuple(Ancestor(id, records[id]["kind"], records[id]["config"]) for id in records if id in behind),
        folders={stage["id"]: run / stage["folder"] / "output" for stage in content["stages"]},
        recipe=recipe.read_text() if recipe.is_file() else "",
        scores=_scores(run, content["stages"], name if liti is None else f"{name}@{liti:g}"),
        liti=liti,
    )


def _record(folder: Path) -> dict[str, Any]:
    path = folder / "stage.json"
    if not path.is_file():
        return {"inputs": {}, "kind": "", "config": {}}
    with reading(path, "the record of a stage", REMEDY):
        content = as_object(json.loads(path.read_text(encoding="utf-8")), ("kind", "inputs", "config"))
        as_object(content["inputs"])
        as_object(content["config"])
        return content


def _behind(name: str, records: Mapping[str, Mapping[str, Any]]) -> set[str]:
    found, open_ids = {name}, [name]
    while open_ids:
        for parent in records[open_ids.pop()]["inputs"]:
            if parent in records and parent not in found:
                found.add(parent)
                open_ids.append(parent)
    return found


def _scores(run: Path, stages: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    for stage in reversed(stages):
        path = run / stage["folder"] / "output" / "scores.json"
        if stage["kind"] == "evaluate" and stage["status"] == "finished" and path.is_file():
            with reading(path, "the scores of an evaluation", REMEDY):
                scores = as_object(json.loads(path.read_text(encoding="utf-8")))
                if name in [policy["stage"] for policy in scores["policies"]]:
                    return scores
    return None


def _models(config: Any) -> Iterator[str]:
    if isinstance(config, Mapping):
        if isinstance(config.get("model"), str):
            yield config["model"]
        for value in config.values():
            yield from _models(value)
