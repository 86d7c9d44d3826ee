"""Arithmetic on checkpoint folders: ends, groups, formats, and what happens to folders that do not fit."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from benchmarks.fidelity.identities import slerp as slerp_vectors
from gemsmith.contracts.errors import UserError
from gemsmith.weights import checkpoint
from gemsmith.weights.checkpoint import Checkpoint, whole_folder
from gemsmith.weights.formats import Array, narrowed, widened
from gemsmith.weights.merge import average, interpolate, slerp
from tests.weights.checkpoint_difference import difference

NAMES = [
    "model.embed_tokens.weight",
    "model.layers.0.mlp.weight",
    "model.layers.0.norm.weight",
    "model.layers.1.mlp.weight",
]


def folder_of(path: Path, seed: int, dtype: torch.dtype = torch.float32) -> Path:
    generator = torch.Generator().manual_seed(seed)
    path.mkdir()
    tensors = {name: torch.randn(6, 4, generator=generator).to(dtype) for name in NAMES}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps({"seed": seed}))
    return path


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [folder_of(tmp_path / f"{seed}", seed) for seed in range(3)]


def test_average_is_the_mean_with_the_first_folders_other_files(three: list[Path], tmp_path: Path):
    average(three, tmp_path / "out")
    a, b, c = (weights_of(folder) for folder in three)
    for name, tensor in weights_of(tmp_path / "out").items():
        assert torch.allclose(tensor, (a[name] + b[name] + c[name]) / 3, atol=1e-7)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"seed": 0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "out"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_average_of_copies_is_bit_equal(dtype: torch.dtype, tmp_path: Path):
    folder = folder_of(tmp_path / "copy", 0, dtype)
    average([folder] * 7, tmp_path / "out")
    assert all(torch.equal(tensor, weights_of(folder)[name]) for name, tensor in weights_of(tmp_path / "out").items())


def test_interpolation_is_bit_equal_at_its_ends_and_may_go_beyond(three: list[Path], tmp_path: Path):
    start, end = weights_of(three[0]), weights_of(three[1])
    for rate in (0.0, 1.0, 1.5):
        interpolate(three[0], three[1], rate, tmp_path / f"{rate}")
    for name in NAMES:
        assert torch.equal(weights_of(tmp_path / "0.0")[name], start[name])
        assert torch.equal(weights_of(tmp_path / "1.0")[name], end[name])
        assert torch.allclose(weights_of(tmp_path / "1.5")[name], 1.5 * end[name] - 0.5 * start[name], atol=1e-6)


def test_slerp_by_layer_shares_one_angle_within_a_layer_only(three: list[Path], tmp_path: Path):
    merges = slerp(three[0], three[1:], tmp_path / "out", "layer")
    assert sorted(merge.group for merge in merges) == [NAMES[0], "model.layers.0", "model.layers.1"]
    init, one, two = (weights_of(folder) for folder in three)
    deltas = [torch.cat([(run[name] - init[name]).flatten() for name in NAMES[1:3]]) for run in (one, two)]
    expected, angle = slerp_vectors(*deltas, 0.5)
    written = weights_of(tmp_path / "out")
    merged = torch.cat([(written[name] - init[name]).flatten() for name in NAMES[1:3]])
    assert torch.allclose(merged, expected, atol=1e-5)
    (layer,) = (merge for merge in merges if merge.group == "model.layers.0")
    assert layer.angles[0] == pytest.approx(angle * 180 / torch.pi, abs=1e-3)
    assert layer.norms == pytest.approx([delta.norm().item() for delta in deltas], rel=1e-5)
    assert layer.norm == pytest.approx(expected.norm().item(), rel=1e-5)
    assert layer.norm_ratio == pytest.approx((deltas[0].norm() / deltas[1].norm()).item(), rel=1e-5)


@pytest.mark.parametrize("group, count", [("tensor", 4), ("layer", 3), ("model", 1)])
def test_groups_of_slerp(three: list[Path], tmp_path: Path, group: str, count: int):
    assert len(slerp(three[0], three[1:], tmp_path / "out", group)) == count


def test_slerp_of_a_run_with_itself_is_the_run_and_of_one_run_too(three: list[Path], tmp_path: Path):
    slerp(three[0], [three[1], three[1]], tmp_path / "twice")
    (merge, *_) = slerp(three[0], [three[1]], tmp_path / "once")
    assert merge.angles == () and merge.shares == (1.0,)
    assert difference(three[1], tmp_path / "twice").largest < 1e-6
    assert difference(three[1], tmp_path / "once").largest < 1e-6


def test_blocks_do_not_change_results(three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    slerp(three[0], three[1:], tmp_path / "whole")
    monkeypatch.setattr(checkpoint, "BLOCK_ELEMENTS", 8)  # two rows of four
    slerp(three[0], three[1:], tmp_path / "blocks")
    assert difference(tmp_path / "whole", tmp_path / "blocks").largest < 1e-6
    assert difference(tmp_path / "whole", three[0]).changed_tensors == 4


def test_bfloat16_is_averaged_wider_and_stored_as_bfloat16(tmp_path: Path):
    folders = []
    for m, value in enumerate([1.0, 1.0, 1.0078125]):  # neighbours in bfloat16
        folder = tmp_path / f"{m}"
        folder.mkdir()
        save_file({"w": torch.full((3,), 256 * value, dtype=torch.bfloat16)}, folder / "model.safetensors")
        folders.append(folder)
    average([*folders, folders[2], folders[2]], tmp_path / "out")  # 257.2 -> 258; a bfloat16 sum gives 256
    assert weights_of(tmp_path / "out")["w"].dtype == torch.bfloat16
    assert weights_of(tmp_path / "out")["w"].tolist() == [258.0] * 3


def test_real_gemma_in_shards_reloads_in_transformers(tmp_path: Path):
    config = Gemma3TextConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, sliding_window=8,
    )  # fmt: skip
    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        models.append(Gemma3ForCausalLM(config))
        models[seed].save_pretrained(tmp_path / f"{seed}", max_shard_size="8KB")
    assert (tmp_path / "0" / "model.safetensors.index.json").exists()
    average([tmp_path / "0", tmp_path / "1"], tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors.index.json").exists()
    loaded = Gemma3ForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight  # tied: stored once, averaged once
    for mean, a, b in zip(loaded.parameters(), *(model.parameters() for model in models), strict=True):
        assert torch.allclose(mean, (a + b) / 2, atol=1e-7)


def test_integers_and_scalars_are_kept(tmp_path: Path):
    for name, steps in (("a", 3), ("b", 3), ("c", 4)):
        (tmp_path / name).mkdir()
        tensors = {"steps": torch.tensor([steps]), "scale": torch.tensor(float(steps)), "none": torch.zeros(0, 4)}
        save_file(tensors, tmp_path / name / "model.safetensors")
    average([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert weights_of(tmp_path / "out")["steps"].tolist() == [3]
    assert weights_of(tmp_path / "out")["scale"].item() == 3.0
    with pytest.raises(UserError, match=r"steps.*differs"):
        average([tmp_path / "a", tmp_path / "c"], tmp_path / "bad")
    assert not list(tmp_path.glob("bad*"))


def test_difference_measures_the_change(three: list[Path], tmp_path: Path):
    assert difference(three[0], three[0]).changed_tensors == 0
    tensors = weights_of(three[0])
    norm = torch.cat([tensor.flatten() for tensor in tensors.values()]).norm().item()
    tensors[NAMES[2]][1, 1] += 0.5
    (tmp_path / "moved").mkdir()
    save_file(tensors, tmp_path / "moved" / "model.safetensors")
    found = difference(three[0], tmp_path / "moved")
    assert (found.changed_tensors, found.largest) == (1, pytest.approx(0.5))
    assert found.relative_norm == pytest.approx(0.5 / norm)


def test_folders_that_do_not_fit_name_the_tensor_and_both_folders(three: list[Path], tmp_path: Path):
    tensors = weights_of(three[1])
    shorter = {name: tensor for name, tensor in tensors.items() if name != NAMES[3]}
    reshaped = {**tensors, NAMES[3]: torch.zeros(2, 2)}
    for kind, changed in (("shorter", shorter), ("reshaped", reshaped)):
        (tmp_path / kind).mkdir()
        save_file(changed, tmp_path / kind / "model.safetensors")
        for folders in ([three[0], tmp_path / kind], [tmp_path / kind, three[0]]):
            with pytest.raises(UserError) as caught:
                average(folders, tmp_path / "out")
            assert all(part in str(caught.value) for part in (NAMES[3], str(three[0]), str(tmp_path / kind)))


def test_missing_and_damaged_weights_are_the_users_fault(three: list[Path], tmp_path: Path):
    with pytest.raises(UserError, match="no weights in"):
        average([tmp_path / "nowhere"], tmp_path / "out")
    with pytest.raises(UserError, match="at least one folder"):
        average([], tmp_path / "out")
    whole = (three[1] / "model.safetensors").read_bytes()
    for damaged in (whole[:-10], whole[:4], b""):
        (three[1] / "model.safetensors").write_bytes(damaged)
        with pytest.raises(UserError, match=r"model\.safetensors could not be read"):
            average(three, tmp_path / "out")
    (three[2] / "model.safetensors.index.json").write_text('{"weight_map": {"w": "gone.safetensors"}}')
    with pytest.raises(UserError, match=r"gone\.safetensors"):
        average([three[2]], tmp_path / "out")


def test_a_merge_may_replace_one_of_its_inputs(three: list[Path]):
    expected = (weights_of(three[0])[NAMES[0]] + weights_of(three[1])[NAMES[0]]) / 2
    average(three[:2], three[0])
    assert torch.allclose(weights_of(three[0])[NAMES[0]], expected, atol=1e-7)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(ZeroDivisionError), whole_folder(out) as part:
        (part / "half").write_text("x")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    for text in ("old", "new"):
        with whole_folder(out) as part:
            (part / "file").write_text(text)
    assert (out / "file").read_text() == "new" and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_importing_the_room_needs_no_torch():
    code = "import sys, gemsmith.weights.merge; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def test_no_more_than_a_block_of_a_tensor_is_ever_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for seed in range(2):
        (tmp_path / f"{seed}").mkdir()
        save_file({"w": torch.full((300, 100), float(seed))}, tmp_path / f"{seed}" / "model.safetensors")
    monkeypatch.setattr(checkpoint, "BLOCK_ELEMENTS", 1000)
    sizes, read = [], Checkpoint.read

    def counted(self: Checkpoint, name: str, rows: slice) -> Array:
        values = read(self, name, rows)
        sizes.append(values.size)
        return values

    monkeypatch.setattr(Checkpoint, "read", counted)
    slerp(tmp_path / "0", [tmp_path / "1", tmp_path / "1"], tmp_path / "out")
    assert max(sizes) == 1000 and sum(sizes) >= 6 * 30_000  # three checkpoints in each of two passes
    assert weights_of(tmp_path / "out")["w"].unique().tolist() == [1.0]


@pytest.mark.parametrize("name, dtype", [("BF16", torch.bfloat16), ("F16", torch.float16)])
def test_sixteen_bits_are_widened_and_rounded_as_torch_does(name: str, dtype: torch.dtype):
    codes = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16)
    wide = codes.view(dtype).float()
    assert torch.equal(
        torch.from_numpy(widened(codes.numpy() if name == "BF16" else codes.view(dtype).numpy(), name)).nan_to_num(7.0),
        wide.nan_to_num(7.0),
    )
    torch.manual_seed(0)
    ties = wide.nan_to_num(0.0, 0.0, 0.0) * (1 + 2.0**-9)  # half-way to the next bfloat16
    for values in (
        torch.randn(100_000),
        torch.randn(100_000) * 1e-6,
        ties,
        torch.tensor([math.nan, math.inf, -math.inf]),
    ):
        rounded = torch.from_numpy(narrowed(values.numpy(), name))
        assert torch.equal(rounded.view(dtype).float().nan_to_num(7.0), values.to(dtype).float().nan_to_num(7.0))


def test_codes_of_eight_bits_are_not_averaged(tmp_path: Path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        save_file({"w": torch.tensor([value]).to(torch.float8_e4m3fn)}, tmp_path / name / "model.safetensors")
    with pytest.raises(UserError, match=r"w \(F8_E4M3\) differs"):
        average([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_a_disk_that_fails_while_the_next_blocks_are_computed_is_not_overheard(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint, "FLUSHED", 1)
    monkeypatch.setattr(checkpoint.os, "fdatasync", broken)
    with pytest.raises(OSError, match="Input/output"):
        average(three, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
