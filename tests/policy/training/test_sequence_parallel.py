"""Two processes that share each sequence compute what one does: one start for all cases."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Gemma3TextConfig

from gemsmith.contracts.errors import UserError
from gemsmith.policy.config import EngineConfig
from gemsmith.policy.training.sequence_parallel import Part, _check_heads, data_processes, own_labels

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "tests/policy/training/slices.py"
ALONE = {"plain": "plain", "zero2": "plain", "plain-lora": "plain-lora", "zero3-lora-checkpointing": "plain-lora"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, warm_python):
    folder = tmp_path_factory.mktemp("slices")
    extensions = str(folder / "extensions")
    one = warm_python.run([str(SCRIPT), str(folder / "one")], TORCH_EXTENSIONS_DIR=extensions)
    two = warm_python.launch([str(SCRIPT), str(folder / "two")], 2, TORCH_EXTENSIONS_DIR=extensions)
    for done in (one, *two):  # none of them in this process: groups outlive them
        assert done.returncode == 0, done.stderr[-4000:]
    return folder / "one", folder / "two"


def test_losses_and_gradients_are_those_of_one_process(folders):
    losses = [json.loads((folder / "losses.json").read_text()) for folder in folders]
    gradients = [torch.load(folder / "gradients.pt") for folder in folders]
    assert len(losses[0]) >= 3 * 5
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for case, expected in gradients[0].items():
        for name, gradient in expected.items():
            torch.testing.assert_close(gradients[1][case][name], gradient, atol=1e-5, rtol=0, msg=f"{case} {name}")
    largest = max(gradient.abs().max() for gradient in gradients[0]["sdpa 1 whole"].values())
    assert largest > 1e-3  # so that 1e-5 means something


@pytest.mark.parametrize("engine", ALONE)
def test_fine_tuning_is_that_of_one_process(folders, engine):
    stages = folders[0] / ALONE[engine], folders[1] / engine
    rows = [[json.loads(line) for line in (each / "metrics.jsonl").read_text().splitlines()] for each in stages]
    assert len(rows[0]) == len(rows[1]) == 3
    for name in ("loss", "grad_norm"):
        one, two = ([row[name] for row in each] for each in rows)
        assert two == pytest.approx(one, rel=1e-5), name
    weights = [load_file(each / "output/model.safetensors") for each in stages]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=3e-4, rtol=0, msg=name)


@pytest.mark.parametrize("tokens", [1, 2, 9, 10])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_label_belongs_to_one_slice(tokens, size):
    labels = torch.arange(1, tokens + 1)[None]
    kept = [own_labels(lambda rows: {"labels": labels}, Part(size, i), [])["labels"] for i in range(size)]
    owners = torch.stack([part != -100 for part in kept]).sum(0)
    assert owners[0].tolist() == [0] + [1] * (tokens - 1)  # nothing predicts the first


def engine(size):
    return EngineConfig(sequence_parallel=size)


def test_a_number_of_processes_that_does_not_suit_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "6")
    assert data_processes(engine(1), "s", sliceable=False) == 6
    assert data_processes(engine(2), "s", sliceable=True) == 3
    with pytest.raises(UserError, match=r"multiple of 4 processes.* 6 .*--processes 4"):
        data_processes(engine(4), "s", sliceable=True)


def test_a_stage_that_cannot_share_sequences_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="Stage aligned cannot run with `sequence_parallel: 2`"):
        data_processes(engine(2), "aligned", sliceable=False)


@pytest.mark.parametrize(("queries", "keys", "size"), [(4, 1, 3), (4, 2, 8), (6, 2, 3)])
def test_heads_that_cannot_be_dealt_out_are_refused(queries, keys, size):
    config = Gemma3TextConfig(num_attention_heads=queries, num_key_value_heads=keys, hidden_size=24)
    with pytest.raises(UserError, match=f"cannot divide {queries} query and {keys} key heads"):
        _check_heads(config, size)
