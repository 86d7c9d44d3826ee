"""Policies of earlier training steps, kept beside the output: WARM's members can start from them (Baklava).

`kept.json` in the stage's folder names the folder of each step, including the last one:

    {"266": "kept/266", "333": "kept/333", "400": "output"}
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.processes import rank
from gemsmith.contracts.reading import reading
from gemsmith.contracts.stage import Stage, write_atomically
from gemsmith.policy.loading.load import save_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.training.sharding import whole_copy

KEPT = "kept"
INDEX = "kept.json"


def kept_policy(output: Path, step: int) -> Path:
    """Return the folder of the policy after `step` steps of the training behind `output`; `output` itself for the last
    step.

    Raises:
        UserError: that step was not kept, or the kept policies are not beside `output`.
    """
    index = output.parent / INDEX
    remedy = "use the output of an `sft` stage, in the folder where that stage wrote it"
    with reading(index, "the folders of kept steps", remedy):
        folders = {int(known): str(folder) for known, folder in json.loads(index.read_text()).items()}
    if step not in folders:
        raise UserError(f"step {step} is not among {', '.join(map(str, folders))}, the steps in {index}.")
    folder = output.parent / folders[step]
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist, but {index} names it; run the stage that wrote it again.")
    return folder


def write_index(stage: Stage, steps: Sequence[int], last: int) -> None:
    """Write the paths of the policies of the kept steps, and of the last step."""
    folders = {str(step): f"{KEPT}/{step}" for step in steps} | {str(last): stage.output.name}
    write_atomically(stage.folder / INDEX, json.dumps(folders) + "\n")


class KeepPolicies(TrainerCallback):
    """Callback that writes the policy after some steps, with adapters merged; existing ones are not written again.

    It runs before the checkpoint of the same step, so that a resumed training has kept the policy of every step it
    passed.
    """

    def __init__(self, stage: Stage, steps: Sequence[int], tokenizer: PreTrainedTokenizerFast) -> None:
        """Construct in every process before training; steps already on disk are skipped."""
        self._folder = stage.folder / KEPT
        self._missing = {step for step in steps if not (self._folder / str(step)).exists()}
        self._tokenizer = tokenizer

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Keep the policy if this step is one of them."""
        if state.global_step in self._missing:
            copy = whole_copy(model)  # every process helps to gather it
            if rank() == 0:
                save_policy(Policy(copy, self._tokenizer), self._folder / str(state.global_step))
