"""The LoRA adapter that a policy's stage trained, for peft, and the check that with its base it equals the policy."""

import json
import shutil
from pathlib import Path
from typing import Any

import peft

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.reading import read_json, reason_of
from gemsmith.export.proof import Sequences, logprobs
from gemsmith.export.publishing import published
from gemsmith.policy.loading.lora import ADAPTER
from gemsmith.policy.policy import Policy

# Nats a token, in float32: base and adapter are added in another order than when they were merged.
TOLERANCE = 0.01


def find_adapter(source: Path | None) -> Path:
    """Return the folder of the adapter beside the policy in `source`.

    Raises:
        UserError: there is no adapter.
    """
    if source is None or not (source / ADAPTER / "adapter_config.json").is_file():
        raise UserError(
            "the policy has no adapter to export: expected one of a stage that was trained with `lora` (and without "
            "ZeRO-3); leave adapter out of `formats`"
        )
    return source / ADAPTER


def write_adapter(adapter: Path, to: Path, base: str) -> None:
    """Copy an adapter, and write the name of its base, without a path of this machine, where peft looks for it."""
    shutil.copytree(adapter, to)
    path = to / "adapter_config.json"
    config = read_json(path, "the configuration of an adapter", "run the stage that wrote it again")
    path.write_text(json.dumps({**config, "base_model_name_or_path": published(base)}, indent=2) + "\n")


def check_adapter(adapter: Path, base: Policy, sequences: Sequences) -> dict[str, Any]:
    """Load the adapter onto the base with peft and compare it with the policy.

    Args:
        adapter: folder of the adapter.
        base: the model that it was trained on, in float32; the adapter stays on it.
        sequences: sequences with the log-probabilities of the policy.

    Returns:
        Entries for `export.json`; `gap` is the largest difference of a log-probability from the merged policy's, in
        nats.

    Raises:
        RunError: the adapter does not load, or base and adapter together differ from the policy.
    """
    try:
        model = peft.PeftModel.from_pretrained(base.model, str(adapter)).eval()
    except Exception as error:  # peft and safetensors raise many unrelated kinds
        raise RunError(f"the adapter in {adapter} does not load in peft: {reason_of(error)}") from error
    found_ST = logprobs(model, sequences.prompts, sequences.completions)
    gap = (found_ST - sequences.logprobs_ST).abs().max().item()
    if not gap <= TOLERANCE:
        raise RunError(
            f"the base with the adapter in {adapter} differs from the policy: a token's log-probability differs by "
            f"{gap:.3g} nats, expected at most {TOLERANCE}"
        )
    size = sum(path.stat().st_size for path in adapter.iterdir())
    return {"folder": adapter.name, "bytes": size, "rank": model.peft_config["default"].r, "gap": gap}
