"""The anchor under LoRA averages products since a version of the code: stages with it are to run again, others not."""

from typing import Any

import pytest

from gemsmith.rl.stages.reinforcement.config import BondStage, ReinforceStage
from gemsmith.rl.stages.warp.config import WarpStage

TRAINING: dict[str, Any] = {"data": "d", "rewards": ["r"], "steps": 1, "batch": 2, "learning_rate": 1e-3}
LORA = {"lora": {"rank": 4}}


@pytest.mark.parametrize(
    ("fields", "averages"),
    [
        ({"kind": "bond", **LORA}, True),
        ({"kind": "bond"}, False),
        ({"kind": "bond", "form": "bond", "n": 2, "anchor": "fixed", **LORA}, False),
        ({"kind": "bond", "form": "bond", "n": 2, "anchor": "periodic", **LORA}, False),
        ({"kind": "reinforce", "kl_to": "anchor", **LORA}, True),
        ({"kind": "reinforce", **LORA}, False),
    ],
)
def test_only_moving_averages_of_adapters_have_new_results(fields: dict[str, Any], averages: bool) -> None:
    kind = BondStage if fields["kind"] == "bond" else ReinforceStage
    stage = kind.model_validate({"id": "s", **TRAINING, **fields})
    assert bool(stage.changed_results()) == averages
    if stage.warp_fault is None:
        inner = {**TRAINING, **fields}
        warp = WarpStage.model_validate({"id": "w", "kind": "warp", "inner": inner})
        assert bool(warp.changed_results()) == averages


def test_a_run_of_warp_that_alone_has_adapters_counts() -> None:
    inner = {"kind": "bond", **TRAINING}
    warp = WarpStage.model_validate({"id": "w", "kind": "warp", "inner": inner, "vary": [{}, LORA]})
    assert warp.changed_results()
