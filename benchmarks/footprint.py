"""Memory of Gemma 3's weights in each number format, compared with the report's table 3. Imports no torch.

`python -m benchmarks.footprint` prints the table of docs/guides/quantisation.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gemsmith.policy.sizes import KNOWN, Shape

Column = Literal["bf16", "int4", "int4, blocks of 32", "SFP8"]
# Bits of a weight. A step of 16 bits for each block of 32 is half a bit; a channel's, one for thousands, is left out.
BITS: dict[Column, float] = {"bf16": 16, "int4": 4, "int4, blocks of 32": 4 + 16 / 32, "SFP8": 8}
VISION = 417_000_000  # SigLIP, in 4B, 12B and 27B (Gemma 3 report, table 1)
VISION_BITS = 8
WITH_VISION = ("4b", "12b", "27b")
# Gemma 3 report (arXiv 2503.19786), table 3, without the caches: GB.
REPORT: dict[str, tuple[float, float, float, float]] = {
    "1b": (2.0, 0.5, 0.7, 1.0),
    "4b": (8.0, 2.6, 2.9, 4.4),
    "12b": (24.0, 6.6, 7.1, 12.4),
    "27b": (54.0, 14.1, 15.3, 27.4),
}


@dataclass(frozen=True)
class Cell:
    """One cell of the table, in GB (1e9 bytes); `deviation` is ours over the report's, less one."""

    model: str
    column: Column
    ours: float
    report: float

    @property
    def deviation(self) -> float:
        """Relative, with its sign."""
        return self.ours / self.report - 1

    @property
    def rounding(self) -> float:
        """The largest relative deviation that the report's one decimal alone can make."""
        return 0.05 / self.report


def footprint(
    shape: Shape, column: Column, *, vision: int = 0, embedding_bits: float | None = None, norm_bits: float = 16
) -> float:
    """Bytes of a model's weights in a number format, in GB (1e9).

    The rules: in bf16 the text model alone is counted. In the others its matrices are in the format, and so is the
    embedding, which is the head too, unless `embedding_bits` says otherwise; norms are in bf16, and the vision tower in
    eight bits.

    Args:
        shape: of the text model.
        column: the format.
        vision: weights of the vision tower.
        embedding_bits: of a weight of the embedding; none: the format's.
        norm_bits: of a weight of a norm.
    """
    embedding = shape.vocabulary * shape.hidden
    norms = shape.layers * (4 * shape.hidden + 2 * shape.head) + shape.hidden
    matrices = shape.parameters - embedding - norms
    bits = BITS[column]
    total = matrices * bits + embedding * (bits if embedding_bits is None else embedding_bits) + norms * norm_bits
    return (total + (0 if column == "bf16" else vision * VISION_BITS)) / 8e9


def cells(embedding_bits: float | None = None) -> Iterator[Cell]:
    """Every cell of the report's table; `embedding_bits` as in `footprint`, of the formats but bf16."""
    for model, row in REPORT.items():
        vision = VISION if model in WITH_VISION else 0
        for column, report in zip(BITS, row, strict=True):
            bits = None if column == "bf16" else embedding_bits
            yield Cell(model, column, footprint(KNOWN[model], column, vision=vision, embedding_bits=bits), report)


def table(embedding_bits: float | None = None) -> str:
    """Return the table in Markdown: ours, the report's in brackets, and the deviation."""
    lines = ["| model | " + " | ".join(BITS) + " |", "|---|" + "---|" * len(BITS)]
    found = {(cell.model, cell.column): cell for cell in cells(embedding_bits)}
    for model in REPORT:
        shown = [found[model, column] for column in BITS]
        row = [f"{cell.ours:.2f} ({cell.report:.1f}) {100 * cell.deviation:+.1f}%" for cell in shown]
        lines.append(f"| {model.upper()} | " + " | ".join(row) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(), "\n\nThe embedding in eight bits:\n", table(8), sep="\n")
