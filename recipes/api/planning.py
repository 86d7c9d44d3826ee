"""Check a recipe, and forecast what a run of it would do, without running anything."""

import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.suggestions import did_you_mean, listed
from gemsmith.recipes.api.opening import RecipeLike, open_pipeline, run_folder

if TYPE_CHECKING:
    from gemsmith.recipes.plan.plan import Forecast

WIDTH = 160


@dataclass(frozen=True)
class Plan:
    """The forecast of a run; `print(plan)` shows the table of `gemsmith plan`, and `plan["sft"]` is one stage's line.

    Attributes:
        stages: one line for each stage, in the order in which they run, with `id`, `kind`, `inputs`, `status`,
            `parameters`, `trained` (number of trained parameters), `memory` (bytes), `seconds`, and `measured` (True
            if `seconds` was measured in the run's folder, False if it is a rough estimate). Values that cannot be
            estimated are None.
        note: the stages that may not be bit-for-bit reproducible; None if all are.
    """

    stages: tuple["Forecast", ...]
    note: str | None = None

    @property
    def seconds(self) -> float | None:
        """Return the estimated seconds of all unfinished stages; None if one of them has no estimate."""
        left = [stage.seconds for stage in self.stages if stage.status != "finished"]
        known = [seconds for seconds in left if seconds is not None]
        return sum(known) if len(known) == len(left) else None

    def __getitem__(self, stage: str) -> "Forecast":
        for line in self.stages:
            if line.id == stage:
                return line
        ids = [line.id for line in self.stages]
        raise UserError(f'found no stage "{stage}" in this plan, expected {listed(ids)}{did_you_mean(stage, ids)}')

    def __iter__(self) -> Iterator["Forecast"]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def text(self, width: int = WIDTH) -> str:
        """Return the output of `gemsmith plan`, at most `width` characters wide."""
        from rich.console import Console

        from gemsmith.recipes.plan.plan import plan_table, summary

        lines = list(self.stages)
        written = io.StringIO()
        console = Console(file=written, width=width, force_terminal=False, force_jupyter=False, highlight=False)
        console.print(plan_table(lines))
        console.print(summary(lines))
        if self.note:
            console.print(self.note)
        return written.getvalue().rstrip("\n")

    def __str__(self) -> str:
        return self.text()


def validate(recipe: RecipeLike, *, set: Mapping[str, Any] | None = None) -> list[str]:
    """Check a recipe, its stage graph, its reward functions' source and its files, without running anything.

    Args:
        recipe: a path, the name of a shipped recipe, or a dict; see `run`.
        set: values for fields of the recipe by their dotted names.

    Returns:
        The ids of the stages in the order in which they run.

    Raises:
        UserError: the recipe is invalid; one line for each fault, with the field and, for a file, the line number.
    """
    return [node.id for node in open_pipeline(recipe, set).nodes]


def plan(
    recipe: RecipeLike, out: str | os.PathLike[str] | None = None, *, set: Mapping[str, Any] | None = None
) -> Plan:
    """Forecast a run: which stages are finished, and the size, memory and time of each.

    Args:
        recipe: a path, the name of a shipped recipe, or a dict; see `run`.
        out: the run's folder, to see which stages are finished. Default: as for `run`.
        set: values for fields of the recipe by their dotted names.

    Raises:
        UserError: the recipe is invalid, as for `validate`.
    """
    from gemsmith.recipes.plan.plan import exempt, forecast

    pipeline = open_pipeline(recipe, set)
    return Plan(tuple(forecast(pipeline, run_folder(out, pipeline.name))), exempt(pipeline))
