"""The export stage: a policy as a transformers folder that appears once it was reloaded, compared and described."""

import gc
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from contracts.errors import UserError
from contracts.stage import Stage
from export.config import ExportStage
from export.lineage import Lineage, read_lineage
from export.model_card import write_model_card
from export.proof import difference_from_base, reload, reload_gap, sample_sequences
from policy.config import PolicyConfig
from policy.load import load_policy, save_policy
from policy.policy import Policy
from weights.checkpoint import whole_folder

Dtype = Literal["float32", "bfloat16"]
_Base = tuple[str, Callable[[], Policy]]  # its name, and how to load it
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def run(config: ExportStage, stage: Stage) -> None:
    """Write the folder to the stage's output; killed at any time, it starts again and leaves no half export.

    Raises:
        RunError: the export does not load, is not what was trained, or equals its base.
    """
    source = stage.inputs[config.policy.from_] if config.policy.from_ is not None else None
    lineage = read_lineage(source, config.policy.liti) if source is not None else Lineage()
    policy = _load(config.policy, stage, stage.seed)
    base: _Base | None = None
    if config.base is not None:
        wanted = config.base
        base = _name(wanted, stage.inputs), lambda: _load(wanted, stage, stage.seed)
    else:
        stage.say("the policy has no base to differ from: it is exported without that comparison")
    _export(
        policy,
        stage.output,
        title=lineage.title if lineage.stages else config.id,
        dtype=config.dtype,
        seed=stage.seed,
        lineage=lineage,
        base=base,
        tell=lambda done, what: stage.progress(done, 3, "check", **what),
    )


def export_folder(source: Path, to: Path, dtype: Dtype = "float32") -> dict[str, Any]:
    """Export a policy's folder, such as a stage's output, to `to`; a base that the run's records name must differ.

    Returns:
        The content of `export.json`.

    Raises:
        UserError: `to` holds something already.
        RunError: the export does not load, is not what was trained, or equals its base.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"{to} holds something already, expected a new or empty folder: give another one")
    lineage = read_lineage(source)
    base = _recorded_base(lineage)
    policy = load_policy(PolicyConfig(model=str(source), dtype="float32"))
    title = lineage.title if lineage.stages else to.name
    return _export(
        policy, to, title=title, dtype=dtype, seed=0, lineage=lineage, base=base, tell=lambda done, what: None
    )


def _recorded_base(lineage: Lineage) -> _Base | None:
    """What the policy's own stage started from, where the run's records lead to weights that are still there."""
    start = lineage.start
    if start is None or (
        start.from_ is not None and not lineage.folders.get(start.from_, Path()).joinpath("config.json").is_file()
    ):
        return None
    wanted = start.model_copy(update={"dtype": "float32"})
    if wanted.model not in (None, "tiny") and not Path(str(wanted.model)).exists():
        return None  # a name that only the recipe's folder or the hub resolves
    return _name(wanted, lineage.folders), lambda: load_policy(wanted, lineage.folders, seed=lineage.seed)


def _load(config: PolicyConfig, stage: Stage, seed: int) -> Policy:
    """In float32 whatever the device, so that the comparison is exact."""
    return load_policy(config.model_copy(update={"dtype": "float32"}), stage.inputs, stage.root, seed=seed)


def _name(config: PolicyConfig, folders: Mapping[str, Path]) -> str:
    """What a person calls the policy: the stage that made it, or the name of its weights."""
    if config.from_ is not None:
        stages = read_lineage(folders[config.from_]).stages
        return config.model_copy(update={"from_": stages[-1].id}).name if stages else config.name
    return f"tiny ({config.size})" if config.model == "tiny" else str(config.model)


def _export(
    policy: Policy,
    to: Path,
    *,
    title: str,
    dtype: Dtype,
    seed: int,
    lineage: Lineage,
    base: _Base | None,
    tell: Callable[[int, dict[str, float]], None],
) -> dict[str, Any]:
    """Write, reload, compare with the policy in memory and then with the base; two models in memory at a time."""
    sequences = sample_sequences(policy, seed)
    tell(1, {})
    policy.model.to(_DTYPES[dtype])
    policy.model.config.dtype = _DTYPES[dtype]
    with whole_folder(to) as part:
        save_policy(policy, part)
        for weights in part.glob("*.safetensors"):
            weights.chmod((part / "config.json").stat().st_mode)  # safetensors writes for the owner only
        reloaded = reload(part, policy)
        gap = reload_gap(reloaded, policy, sequences)
        tell(2, {"reload gap": gap})
        del policy
        gc.collect()
        found = None
        if base is not None:
            name, load = base
            found = difference_from_base(reloaded.model.state_dict(), load().model.state_dict(), name)
        proof = {
            "base": base[0] if base is not None else None,
            "largest_difference": found.largest if found is not None else None,
            "relative_difference": found.relative if found is not None else None,
            "reload_gap": gap,
            "sequences": len(sequences.completions),
            "dtype": dtype,
            "parameters": sum(parameter.numel() for parameter in reloaded.model.parameters()),
        }
        (part / "export.json").write_text(json.dumps(proof, indent=1) + "\n")
        write_model_card(part, title, lineage, proof)
    tell(3, {"reload gap": gap})
    return proof
