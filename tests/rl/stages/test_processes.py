"""Two processes train the same policy as one process, under every engine; one launch covers all cases."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gemsmith.policy.training.data_order import DataOrder
from gemsmith.rl.algorithms.algorithm import Draw, Rollouts, Weighted
from gemsmith.rl.rollouts.trainer import deal
from tests.warm_python import WarmPython

ROOT = Path(__file__).parents[3]
ORDINARY = [
    "sft:1",
    "sft:2",
    "sft:3",
    "sft:3:lora",
    "distill:3:lora",
    "gkd:3:lora",
    "warm:3:lora",
    "bond:3:lora",
    "bond:plain",
]
ORDINARY += ["gkd:3:lora", "iterated:3:lora"]  # iterated BOND, with an anchor that is refreshed
THE_REST = [
    *("sft:0", "sft:plain", "sft:2offload", "sft:3offload", "bond:0", "bond:1", "bond:2", "bond:3", "bond:3offload"),
    *(
        "distill:plain",
        "distill:3",
        "gkd:plain",
        "gkd:3",
        "warm:plain",
        "warm:3",
        "reinforce:plain",
        "reinforce:2",
        "reinforce:3:lora",
    ),
    *("grpo:plain", "grpo:2", "grpo:3", "grpo:3:lora"),
    *("reinforce:3", "warp:plain", "warp:3", "warp:3:lora", "iterated:plain", "iterated:3"),
]


def launched(folder: Path, cases: Sequence[str], processes: int) -> Path:
    """Train the cases with torch's launcher in a number of processes, and return the folder."""
    script = [str(ROOT / "tests/rl/stages/together.py"), str(folder), *cases]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), *script]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    environment["TORCH_EXTENSIONS_DIR"] = str(folder.parent / "extensions")
    done = subprocess.run(command, env=environment, timeout=1200, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def plain(case: str) -> str:
    """Return the case for one process in plain torch to compare with."""
    kind, _, *lora = case.split(":")
    return ":".join([kind, "plain", *lora])


def compare(alone: Path, together: Path, case: str) -> None:
    """Check for equal metrics up to 1e-5, and equal weights up to AdamW's amplification of rounding errors."""
    one, two = alone / plain(case).replace(":", "-"), together / case.replace(":", "-")
    rows = [[json.loads(line) for line in (d / "metrics.jsonl").read_text().splitlines()] for d in (one, two)]
    assert len(rows[0]) == len(rows[1]) >= 3
    names = (
        "ratio",
        "clipped",
        "loss",
        "reward",
        "jbond_reward",
        "bond_reward",
        "length",
        "held_out_accuracy",
        *("kl_from_teacher", "agreement", "teacher_logprob", "on_policy"),
    )
    for name in names:
        expected, found = ([row.get(name) for row in each] for each in rows)
        assert found == [x if x is None else pytest.approx(x, rel=1e-5, abs=1e-5) for x in expected], name
    if case.startswith("warp"):
        (ours,), (theirs,) = (json.loads((d / "output/warp.json").read_text())["front"]["points"] for d in (one, two))
        assert ours["prompts"] == theirs["prompts"] == 5
        assert theirs["length"] == pytest.approx(ours["length"]) and theirs["reward"] == pytest.approx(ours["reward"])
    weights = [load_file(d / "output/model.safetensors") for d in (one, two)]
    assert weights[0].keys() == weights[1].keys()  # the tied head is stored once
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=3e-4), name
    assert not (two / "checkpoints").exists()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("processes")
    script, extensions = str(ROOT / "tests/rl/stages/together.py"), str(folder / "extensions")
    alone = [script, str(folder / "one"), *dict.fromkeys(plain(case) for case in ORDINARY)]
    done = warm_python.run(alone, TORCH_EXTENSIONS_DIR=extensions)
    assert done.returncode == 0, done.stderr[-4000:]
    together = [script, str(folder / "two"), *ORDINARY]
    for done in warm_python.launch(together, 2, TORCH_EXTENSIONS_DIR=extensions):
        assert done.returncode == 0, done.stderr[-4000:]
    return folder / "one", folder / "two"


@pytest.mark.parametrize("case", ORDINARY)
def test_two_processes_learn_what_one_learns(case: str, pair: tuple[Path, Path]) -> None:
    compare(*pair, case)


def test_nothing_is_compiled_in_the_middle_of_a_run(pair: tuple[Path, Path]) -> None:
    assert list((pair[0].parent / "extensions").rglob("*.so")) == []


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_under_every_other_engine(tmp_path: Path) -> None:
    alone = launched(tmp_path / "one", list(dict.fromkeys(plain(case) for case in THE_REST)), 1)
    together = launched(tmp_path / "two", THE_REST, 2)
    for case in THE_REST:
        compare(alone, together, case)


def test_the_order_of_the_data_is_a_permutation_of_whole_batches() -> None:
    order = list(DataOrder(10, batch=4, steps=5, seed=3))
    assert len(order) == 20 and order == list(DataOrder(10, batch=4, steps=5, seed=3))
    for start in (0, 8):  # two batches of four in ten examples; two are left out each time
        assert len(set(order[start : start + 8])) == 8
    assert order != list(DataOrder(10, batch=4, steps=5, seed=4))


def test_examples_fewer_than_a_batch_come_back_before_the_batch_is_full() -> None:
    order = list(DataOrder(3, batch=4, steps=3, seed=0))
    assert [sorted(order[i : i + 3]) for i in (0, 3, 6, 9)] == [[0, 1, 2]] * 4


def test_a_process_without_a_sequence_still_runs_the_model() -> None:
    rollouts = Rollouts([[2, 7]], Draw([[10]], learnt_reward_PN=torch.zeros(1, 1)))
    sequences = [Weighted([2, 7], [10], 0.5), Weighted([2, 7], [11], 0.25), Weighted([2, 7], [12], 0.125)]
    assert [[s.weight for s in hand] for hand in deal(sequences, rollouts, 2)] == [[0.5, 0.125], [0.25]]
    assert [[s.weight for s in hand] for hand in deal(sequences[:1], rollouts, 2)] == [[0.5], [0.0]]
