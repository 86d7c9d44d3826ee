from pathlib import Path

import pytest

from benchmarks.footprint import REPORT, VISION, cells, footprint, table
from gemsmith.policy.sizes import KNOWN, Shape

DOCS = Path(__file__).parents[2] / "docs" / "guides" / "quantisation.md"


def test_each_kind_of_weight_is_counted_at_its_bits():
    shape = Shape(hidden=64, intermediate=128, heads=2, kv_heads=1, head=32, layers=3, vocabulary=1000)
    embedding, norms = 1000 * 64, 3 * (4 * 64 + 2 * 32) + 64
    matrices = 3 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 128)  # query, key and value, output; MLP
    assert shape.parameters == embedding + norms + matrices
    assert footprint(shape, "bf16", vision=500) == pytest.approx(2 * shape.parameters / 1e9)  # text alone
    expected = matrices * 4.5 / 8 + embedding * 4.5 / 8 + norms * 2 + 500
    assert footprint(shape, "int4, blocks of 32", vision=500) == pytest.approx(expected / 1e9)
    expected = matrices / 2 + embedding + norms * 2
    assert footprint(shape, "int4", embedding_bits=8) == pytest.approx(expected / 1e9)


def test_12b_and_27b_are_within_5_percent_of_the_report():
    found = {(cell.model, cell.column): cell.deviation for cell in cells() if cell.model in ("12b", "27b")}
    assert len(found) == 8
    assert all(abs(deviation) < 0.05 for deviation in found.values())


def test_the_small_models_are_explained_by_their_embedding_and_by_round_names():
    off = {(cell.model, cell.column) for cell in cells() if abs(cell.deviation) > max(0.025, cell.rounding)}
    blocks = "int4, blocks of 32"
    assert off == {("1b", blocks), ("4b", "bf16"), ("4b", "int4"), ("4b", blocks), ("12b", "int4")}
    eight = {(cell.model, cell.column): cell for cell in cells(8)}
    for model in ("1b", "4b"):
        cell = eight[model, blocks]
        assert abs(cell.deviation) <= cell.rounding  # met to the report's one decimal
    for name, row in REPORT.items():  # bf16 and SFP8 of a model of its round name, and a tower in bytes
        weights, tower = float(name[:-1]), 0 if name == "1b" else VISION / 1e9
        assert row[0] == 2 * weights
        assert row[3] == round(weights + tower, 1)
    towers = [REPORT[name][1] - float(name[:-1]) / 2 for name in ("4b", "12b", "27b")]
    assert towers == pytest.approx([0.6, 0.6, 0.6])  # what int4 has on top of half a byte for each weight


def test_the_page_shows_the_table_as_it_is_computed():
    assert table() in DOCS.read_text()
    assert set(REPORT) < set(KNOWN)
