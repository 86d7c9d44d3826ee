"""Small preference problem (the larger of two numbers is preferred), and warm stages on it."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import JsonLinesData
from gemsmith.policy.config import PolicyConfig
from gemsmith.reward_models.config import WarmStage

STEPS = 12


def write_pairs(path: Path, prompts: int = 80) -> None:
    """Write preference pairs, two per prompt."""
    draw = random.Random(0)
    with path.open("w") as file:
        for number in range(prompts):
            for _ in range(2):
                low, high = sorted(draw.sample(range(10, 100), 2))
                row = {"prompt": f"Number {number}", "chosen": f"{high}", "rejected": f"{low}"}
                row |= {"task": "even" if number % 2 == 0 else "odd", "gap": (high - low) / 100}
                file.write(json.dumps(row) + "\n")


def warm_stage(folder: Path, root: Path, **fields: Any) -> tuple[WarmStage, Stage]:
    """Return a stage of three members, twelve steps each, on the pairs of `root`/pairs.jsonl."""
    config: Mapping[str, Any] = {
        "id": "warm", "kind": "warm", "policy": PolicyConfig(model="tiny"), "data": "pairs", "members": 3,
        "steps": STEPS, "batch": 16, "learning_rate": 1e-3, "dropouts": [0.0, 0.1], "probe_steps": 3, "save_every": 5,
        "holdout": 0.25, "max_length": 64, **fields,
    }  # fmt: skip
    data = JsonLinesData(source="jsonl", path="pairs.jsonl", chosen="{chosen}", rejected="{rejected}", task="{task}",
                         columns=["gap"], holdout=0.1)  # fmt: skip
    return WarmStage(**config), Stage(id="warm", folder=folder, seed=0, root=root, data={"pairs": data})
