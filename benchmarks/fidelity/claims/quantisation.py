"""Rounding a policy's weights to three formats, and training it to be itself with rounded weights."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.code import ROOT
from benchmarks.fidelity.figure import draw_numbers
from benchmarks.fidelity.toys.trajectory import start_of
from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import PythonData
from gemsmith.rl.stages.qat.config import QatStage
from gemsmith.rl.stages.qat.stage import run as run_stage

FORMATS = {"int4_channel": "int4 by channel", "q4_0": "int4 by blocks (Q4_0)", "sfp8": "switched fp8"}


def run(setting: Setting, seed: int) -> Measured:
    """Run a qat stage for each format, all from one policy; each measures the rounded and the trained policy."""
    start = start_of(setting, seed)
    numbers: dict[str, float] = {}
    for format in FORMATS:
        folder = Path(tempfile.mkdtemp(prefix="fidelity-"))
        try:
            found = _trained(format, start, folder, setting, seed)
        finally:
            shutil.rmtree(folder)
        for name in ("ptq", "qat"):
            numbers[f"{format} {name}"] = found[name]["kl"]
            numbers[f"{format} {name} agreement"] = found[name]["agreement"]
    return Measured(numbers)


def _trained(format: str, start: Path, folder: Path, setting: Setting, seed: int) -> dict[str, Any]:
    data = PythonData(
        source="python",
        target="benchmarks.fidelity.toys.demonstrations:rows",
        options={"language": seed, "size": setting["rows"]},
        demonstration="{completion}",
        holdout=0.15,
    )
    config = QatStage.model_validate(
        {
            **{"id": format, "kind": "qat", "policy": {"model": str(start), "attention": "sdpa"}, "data": "language"},
            **{"format": format, "embedding": setting["embedding"], "mode": "topk", "sampled_logits": 512},
            **{"steps": setting["steps"], "batch": setting["batch"], "learning_rate": setting["learning_rate"]},
            **{"warmup": setting["steps"] // 10, "save_every": setting["steps"], "held_out": setting["held_out"]},
        }
    )
    stage = Stage(id=format, folder=folder / format, seed=seed, root=ROOT, data={"language": data})
    run_stage(config, stage)
    found: dict[str, Any] = json.loads((stage.output / "qat.json").read_text())
    return found


def judge(measurements: Sequence[Measured]) -> Verdict:
    """Judge the cost of rounding by format, and how much of it training recovers."""

    def kl(one: Measured, format: str, when: str) -> float:
        return one.numbers[f"{format} {when}"]

    def left(one: Measured, format: str) -> float:
        return kl(one, format, "qat") / kl(one, format, "ptq")

    return graded(
        "rounding costs int4 by channel more than int4 by blocks, and that more than switched fp8, which costs nearly "
        "nothing; training wins most of int4's loss back",
        [
            "KL rounded "
            + "/".join(f"{kl(one, format, 'ptq'):.2g}" for format in FORMATS)
            + ", trained "
            + "/".join(f"{kl(one, format, 'qat'):.2g}" for format in FORMATS)
            + " (int4 by channel, by blocks, fp8); left "
            + "/".join(f"{100 * left(one, format):.0f}%" for format in FORMATS)
            for one in measurements
        ],
        {
            "rounding: by channel costs more than by blocks, that more than fp8": [
                kl(one, "int4_channel", "ptq") > kl(one, "q4_0", "ptq") > kl(one, "sfp8", "ptq") for one in measurements
            ],
            "fp8 costs a fifth of int4 by blocks at most": [
                kl(one, "sfp8", "ptq") < 0.2 * kl(one, "q4_0", "ptq") for one in measurements
            ],
            "training leaves half of the loss of int4 by channel at most": [
                left(one, "int4_channel") < 0.5 for one in measurements
            ],
            "training leaves half of the loss of int4 by blocks at most": [
                left(one, "q4_0") < 0.5 for one in measurements
            ],
        },
        "KL(unquantised || quantised) over the whole vocabulary, in nats a token of held-out demonstrations; the "
        "matrices of attention and MLP are quantised, and the embedding is not, as in the released files. The targets "
        "are the whole distribution of the unquantised policy. The report gives no such numbers: the sizes expected "
        "here are ours, and the learning rate was chosen on seed 99.",
    )


def draw(axes: Any, measurements: Sequence[Measured]) -> None:
    """Draw a column for each format."""
    names = {"ptq": "rounded (PTQ)", "qat": "trained (QAT)"}
    groups = {text: {label: f"{format} {name}" for name, label in names.items()} for format, text in FORMATS.items()}
    draw_numbers(axes, measurements, groups, "KL to the unquantised policy (nats a token)")
    axes.set_yscale("log")


CLAIM = Claim(
    id="D3",
    sentence="Rounding costs int4 by channel more than by blocks, and fp8 hardly; training wins most of it back.",
    source="Gemma 3 report (arXiv 2503.19786), section 2.3",
    setting={
        "sft_steps": 90, "rows": 2000, "held_out": 256, "embedding": "f16", "steps": 100, "batch": 32,
        "learning_rate": 1e-4,
    },
    quick={"sft_steps": 12, "rows": 60, "held_out": 8, "steps": 3, "batch": 8},
    run=run,
    judge=judge,
    draw=draw,
    names=("benchmarks.fidelity.toys.demonstrations",),
)  # fmt: skip
