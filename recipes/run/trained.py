"""Find the policies that a run has trained, by the run's folder and a stage's id."""

import json
from dataclasses import dataclass
from pathlib import Path

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.reading import as_object, read_json, reading
from gemsmith.contracts.suggestions import did_you_mean, listed
from gemsmith.recipes.run.checksums import check_whole
from gemsmith.recipes.run.record import read_run


@dataclass(frozen=True)
class TrainedPolicy:
    """A policy in a folder, with the policy that it was trained from if the run still has it."""

    folder: Path
    stage: str | None = None
    base: Path | None = None


def find_policy(place: Path, stage: str | None = None) -> TrainedPolicy:
    """Find a policy in a run's folder, or in a model folder.

    Args:
        place: folder of a run, folder of a model, or a .gguf file.
        stage: id of a stage of the run; None chooses the last finished stage with a policy.

    Raises:
        UserError: there is no such policy, or one of its files is not as the stage wrote it.
    """
    if not (place / "run.json").is_file():
        if (place / "config.json").is_file() or (place.suffix == ".gguf" and place.is_file()):
            if stage is not None:
                raise UserError(
                    f"{place}: found a model, which has no stages; leave {stage} out, or name the folder of a run"
                )
            check_whole([place])
            return TrainedPolicy(place)
        raise UserError(
            f"{place}: found no run and no model, expected the folder of a run (with run.json) or of a model"
        )
    stages = {entry["id"]: entry for entry in read_run(place)["stages"]}
    finished = [
        name
        for name, entry in stages.items()
        if entry["status"] == "finished" and _is_policy(place / entry["folder"] / "output")
    ]
    chosen = stage or (finished[-1] if finished else None)
    if chosen is None:
        raise UserError(f"{place}: found no finished stage with a policy; run the recipe first")
    if chosen not in stages:
        raise UserError(
            f"{place}: found no stage {chosen}, expected {listed(finished)}{did_you_mean(chosen, finished)}"
        )
    if chosen not in finished:
        state = stages[chosen]["status"]
        reason = "has no policy" if state == "finished" else f"is {state}"
        raise UserError(f"{place}: stage {chosen} {reason}, expected a finished one with a policy: {listed(finished)}")
    folder = place / stages[chosen]["folder"]
    path = folder / "stage.json"
    with reading(path, "the record of a stage", _RECORD):
        config = as_object(as_object(json.loads(path.read_text(encoding="utf-8")), ("config",))["config"])
        origin = as_object(config.get("policy") or {}).get("from") or ""
    base = place / stages[origin]["folder"] / "output" if origin in finished else None
    check_whole([folder / "output"] if base is None else [folder / "output", base])
    return TrainedPolicy(folder / "output", chosen, base)


_RECORD = "put it back from a copy, or delete the folder to run the stage again"


def _is_policy(folder: Path) -> bool:
    """Return whether a stage's output is a causal language model."""
    path = folder / "config.json"
    if not path.is_file():
        return False
    architectures = read_json(path, "the configuration of a model", _RECORD).get("architectures")
    return isinstance(architectures, list) and any(str(name).endswith("ForCausalLM") for name in architectures)
