"""The figure of a claim: its sentence as the title, seeds as thin lines, one colour for each thing compared."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.fidelity.claim import Claim, Measured

COLOURS = ("#0b62a4", "#d1570b", "#2a8a3e", "#8e3a9d", "#7a5230", "#5c6670")


def draw(claim: Claim, measurements: Sequence[Measured], path: Path) -> None:
    """Draw a claim's measurements and save them as a PNG of 660 by 440 pixels."""
    figure = Figure(figsize=(6.6, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    claim.draw(axes, measurements)
    title = "\n".join(textwrap.wrap(f"{claim.id}. {claim.sentence}", 88))
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_fontsize(8.5)
    axes.yaxis.label.set_fontsize(8.5)
    axes.set_title(title, fontsize=9, loc="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None}, pil_kwargs={"optimize": True})


def draw_curves(
    axes: Any, measurements: Sequence[Measured], labels: dict[str, str], x: str, y: str, marker: str | None = None
) -> None:
    """Draw the curves of all seeds as thin lines, those of one name in one colour.

    Args:
        axes: of matplotlib.
        measurements: one for each seed.
        labels: the text of the legend for each curve's name, in the order of the colours.
        x: name and unit of the horizontal axis.
        y: name and unit of the vertical axis.
        marker: matplotlib's sign for each point; none: only lines.
    """
    for colour, (name, label) in zip(COLOURS, labels.items(), strict=False):
        for number, measured in enumerate(measurements):
            points = measured.curves[name]
            axes.plot(
                [point[0] for point in points],
                [point[1] for point in points],
                color=colour,
                linewidth=0.9,
                marker=marker,
                markersize=3.5,
                label=label if number == 0 else None,
            )
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(frameon=False, fontsize=8)


def draw_numbers(axes: Any, measurements: Sequence[Measured], groups: dict[str, dict[str, str]], y: str) -> None:
    """Draw numbers as points: a column for each group, in it a colour for each label, and seeds joined by thin lines.

    Args:
        axes: of matplotlib.
        measurements: one for each seed.
        groups: for each column's text, the names of its numbers by the label that they have in the legend.
        y: name and unit of the vertical axis.
    """
    labels = list(dict.fromkeys(label for group in groups.values() for label in group))
    for place, group in enumerate(groups.values()):
        offsets = [place + (labels.index(label) - (len(labels) - 1) / 2) * 0.6 / len(labels) for label in group]
        for measured in measurements:
            values = [measured.numbers[name] for name in group.values()]
            axes.plot(offsets, values, color="#bbbbbb", linewidth=0.7, zorder=1)
            colours = [COLOURS[labels.index(label) % len(COLOURS)] for label in group]
            axes.scatter(offsets, values, color=colours, s=16, zorder=2)
    for label, colour in zip(labels, COLOURS, strict=False):
        axes.scatter([], [], color=colour, s=16, label=label)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylabel(y)
    axes.legend(frameon=False, fontsize=8)
