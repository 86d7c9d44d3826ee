"""Rows that benchmarks produce, as a table for people and as JSON for later comparison."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gemsmith.recipes.run.machine import environment


@dataclass(frozen=True)
class Row:
    """One measured number beside what it is compared with; `spread` is half the range of the repeats."""

    name: str
    value: float
    unit: str
    baseline: str
    baseline_value: float
    spread: float = 0.0
    tolerance: float | None = None

    @property
    def ratio(self) -> float | None:
        """Value over baseline, where that is a number."""
        return self.value / self.baseline_value if self.baseline_value else None

    @property
    def within(self) -> bool:
        """Return True if the value is as near to its baseline as required; also True without a requirement."""
        return self.tolerance is None or abs(self.value - self.baseline_value) <= self.tolerance


def print_rows(rows: Sequence[Row], title: str) -> None:
    """Print a table; a row that misses its tolerance is marked."""
    table = Table(title=title, title_justify="left")
    checked = any(row.tolerance is not None for row in rows)
    for name in ("name", "value", "unit", "compared with", "its value", "tolerance" if checked else "ratio"):
        table.add_column(name, justify="left" if name in ("name", "unit", "compared with") else "right")
    for row in rows:
        spread = f" ± {row.spread:.3g}" if row.spread else ""
        last = f"{row.ratio:.2f}x" if row.ratio is not None else ""
        if row.tolerance is not None:
            last = f"{row.tolerance:.1g}" if row.within else f"{row.tolerance:.1g} MISSED"
        value, baseline = f"{row.value:.4g}{spread}", f"{row.baseline_value:.4g}"
        table.add_row(escape(row.name), value, row.unit, row.baseline, baseline, last)
    Console(width=150).print(table)


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write the rows with the machine they were measured on."""
    found = environment()
    machine = f"{found['processor']}, {found['cores']} cores, torch {found['libraries']['torch']}"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = [asdict(row) | {"ratio": row.ratio, "machine": machine} for row in rows]
    path.write_text(json.dumps(content, indent=1) + "\n")
