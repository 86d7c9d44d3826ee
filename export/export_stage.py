"""The export stage: writes a policy to one folder, which appears after each format was read back and compared."""

import gc
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.local import find_local
from gemsmith.contracts.reading import read_json
from gemsmith.contracts.stage import Stage
from gemsmith.export.adapter import check_adapter, find_adapter, write_adapter
from gemsmith.export.config import ExportStage
from gemsmith.export.gguf_model import check_readable, gguf_scheme, write_gguf
from gemsmith.export.gguf_proof import check_gguf
from gemsmith.export.lineage import Lineage, read_lineage
from gemsmith.export.model_card import write_model_card
from gemsmith.export.proof import Sequences, difference_from_base, reload, reload_gap, sample_sequences
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.policy.loading.lora import ADAPTER
from gemsmith.policy.policy import Policy
from gemsmith.policy.quantised import read_mark, write_mark
from gemsmith.weights.checkpoint import whole_folder

Dtype = Literal["float32", "bfloat16"]
_Base = tuple[str, Callable[[], Policy]]  # its name, and how to load it
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def run(config: ExportStage, stage: Stage) -> None:
    """Write the folder to the stage's output. After a kill it starts again; an incomplete export is never visible.

    Raises:
        UserError: a format cannot hold the policy.
        RunError: the export does not load, differs from the trained policy, or equals its base.
    """
    source = stage.inputs[config.policy.from_] if config.policy.from_ is not None else None
    lineage = read_lineage(source, config.policy.liti) if source is not None else Lineage()
    policy = _load(config.policy, stage, stage.seed)
    base: _Base | None = None
    if config.base is not None:
        wanted = config.base
        base = _name(wanted, stage.inputs), lambda: _load(wanted, stage, stage.seed)
    else:
        stage.say("the policy has no base: it is exported without a comparison with its base")
    folder = None if config.policy.liti is not None else source or find_local(stage.root, str(config.policy.model))
    _export(
        policy,
        stage.output,
        config,
        title=lineage.title if lineage.stages else config.id,
        seed=stage.seed,
        lineage=lineage,
        base=base,
        source=folder,
        tell=lambda done, what: stage.progress(done, 3, "check", **what),
    )


def _load(config: PolicyConfig, stage: Stage, seed: int) -> Policy:
    """Load in float32 on any device, so that the comparison is exact."""
    return load_policy(config.model_copy(update={"dtype": "float32"}), stage.inputs, stage.root, seed=seed)


def _name(config: PolicyConfig, folders: Mapping[str, Path]) -> str:
    """Return the policy's name for messages: the stage that made it, or the name of its weights."""
    if config.from_ is not None:
        stages = read_lineage(folders[config.from_]).stages
        return config.model_copy(update={"from_": stages[-1].id}).name if stages else config.name
    return f"tiny ({config.size})" if config.model == "tiny" else str(config.model)


def _export(
    policy: Policy,
    to: Path,
    config: ExportStage,
    *,
    title: str,
    seed: int,
    lineage: Lineage,
    base: _Base | None,
    source: Path | None,
    tell: Callable[[int, dict[str, float]], None],
) -> None:
    """Write, reload, and compare with the policy in memory and then with the base; two models are in memory at a
    time.
    """
    mark = read_mark(source) if source is not None and source.is_dir() else None
    scheme = gguf_scheme(config.gguf, config.gguf_embedding, mark)
    adapter = find_adapter(source) if "adapter" in config.formats else None
    if "gguf" in config.formats:
        check_text_only(source)
        check_readable(policy, scheme)
    if adapter is not None and base is None:
        raise UserError("an adapter needs its base model; set `base` of the export")
    sequences = sample_sequences(policy, seed)
    tell(1, {})
    with whole_folder(to) as part:
        found: dict[str, Any] = {"formats": list(config.formats), "dtype": config.dtype}
        found |= {"sequences": len(sequences.completions), "reload_gap": None}
        if "gguf" in config.formats:
            path = part / f"{title}-{config.gguf}.gguf"
            write_gguf(policy, path, scheme, title)
            found["gguf"] = check_gguf(path, policy, scheme, sequences, mark)
        if "transformers" in config.formats:
            found["reload_gap"] = _transformers(policy, part, config.dtype, sequences)
            if mark is not None and config.dtype == "float32":  # bfloat16 rounds the weights off their grid
                write_mark(part, mark)
        tell(2, {"reload gap": found["reload_gap"] or 0.0})
        parameters = sum(parameter.numel() for parameter in policy.model.parameters())
        difference = None
        if base is not None:
            name, load = base
            other = load()
            difference = difference_from_base(policy.model.state_dict(), other.model.state_dict(), name)
            del policy
            gc.collect()
            if adapter is not None:
                write_adapter(adapter, part / ADAPTER, name)
                found["adapter"] = check_adapter(part / ADAPTER, other, sequences)
        proof = {
            "base": base[0] if base is not None else None,
            "largest_difference": difference.largest if difference is not None else None,
            "relative_difference": difference.relative if difference is not None else None,
            "parameters": parameters,
            "quantisation": asdict(mark) if mark is not None else None,
            **found,
        }
        (part / "export.json").write_text(json.dumps(proof, indent=1) + "\n")
        write_model_card(part, title, lineage, proof)
    tell(3, {"reload gap": proof["reload_gap"] or 0.0})


def _transformers(policy: Policy, part: Path, dtype: Dtype, sequences: Sequences) -> float:
    """Write the transformers folder and reload it; converts the policy in memory to the folder's number format."""
    policy.model.to(_DTYPES[dtype])
    policy.model.config.dtype = _DTYPES[dtype]
    save_policy(policy, part, lambda new: _move_all(part, new))
    for weights in part.glob("*.safetensors"):
        weights.chmod((part / "config.json").stat().st_mode)  # safetensors writes for the owner only
    return reload_gap(reload(part, policy), policy, sequences)


def _move_all(folder: Path, to: Path) -> None:
    for path in folder.iterdir():
        path.rename(to / path.name)


def check_text_only(source: Path | None) -> None:
    """Reject a multimodal checkpoint, because a GGUF file would hold only its text tower.

    Raises:
        UserError: the checkpoint has a vision tower.
    """
    path = source / "config.json" if source is not None else None
    if path is None or not path.is_file():
        return
    config = read_json(path, "the configuration of a Gemma 3", "put the released one beside the weights")
    if config.get("model_type") == "gemma3":
        raise UserError(
            f"{source} has a vision tower, which this GGUF file would leave out: export its text tower with "
            "`formats: [transformers]` first, and that folder as gguf"
        )
