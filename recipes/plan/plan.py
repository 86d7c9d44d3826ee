"""Forecast a run before anything runs: each stage's state, size, memory and time."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.table import Table

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.planning import ForecastContext, ModelSize, Throughput
from gemsmith.contracts.reading import reading
from gemsmith.policy.config import PolicyConfig, SamplerConfig
from gemsmith.policy.forecast import SAMPLING_FLOPS, TRAINING_FLOPS
from gemsmith.policy.sizes import shape_of
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.recipes.pipeline.pipeline import Pipeline
from gemsmith.recipes.run.machine import cores, gpus
from gemsmith.recipes.run.record import Status, read_stage
from gemsmith.recipes.run.view import duration


@dataclass(frozen=True)
class Forecast:
    """One line of the plan; values that cannot be estimated are None."""

    id: str
    kind: str
    inputs: tuple[str, ...]
    status: Status
    parameters: int | None
    trained: int | None
    memory: float | None
    seconds: float | None
    measured: bool


def forecast(pipeline: Pipeline, run: Path) -> list[Forecast]:
    """Return a line for each stage, in the order to run them.

    Args:
        pipeline: the checked recipe.
        run: the run's folder, whose records show which stages are finished and how long they took; it may not exist.
    """
    pipeline = pipeline.for_run(run)
    sizes: dict[str, ModelSize | None] = {}

    def size_of(policy: PolicyConfig) -> ModelSize | None:
        return sizes.get(policy.from_) if policy.from_ else shape_of(policy, pipeline.root)

    stages = {node.id: node.config for node in pipeline.nodes}
    context = ForecastContext(stages, pipeline.rewards, sizes, size_of, _throughput())
    lines = []
    for node in pipeline.nodes:
        expected = node.config.forecast(context)
        sizes[node.id] = expected.size
        record = read_stage(run / pipeline.folder(node))
        seconds: float | None = record.seconds
        measured = True
        if record.status != "finished":
            before = _seconds_before(run, node)
            seconds, measured = (before, True) if before else (expected.seconds, False)
        parameters = expected.size.parameters if expected.size is not None else None
        lines.append(
            Forecast(
                id=node.id,
                kind=node.kind,
                inputs=node.inputs,
                status=record.status,
                parameters=parameters,
                trained=expected.trained,
                memory=expected.memory,
                seconds=seconds,
                measured=measured,
            )
        )
    return lines


def _throughput() -> Throughput | None:
    """Return the estimated throughput of this machine's cores; None if there is a GPU, whose speed is unknown."""
    return None if gpus() else Throughput(TRAINING_FLOPS * cores(), SAMPLING_FLOPS * cores())


def plan_table(lines: list[Forecast]) -> Table:
    """Return the plan as a table for a terminal."""
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    for name in ("stage", "kind", "builds on", "state"):
        table.add_column(name, no_wrap=name == "stage")
    for name in ("parameters", "trained", "memory", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        time = "?" if line.seconds is None else ("" if line.measured else "~") + duration(line.seconds)
        table.add_row(
            line.id,
            line.kind,
            ", ".join(line.inputs) or "-",
            line.status,
            count(line.parameters),
            count(line.trained) if line.trained else "-",
            "?" if line.memory is None else f"~{size(line.memory)}",
            time,
        )
    return table


def summary(lines: list[Forecast]) -> str:
    """Return a summary of the stages left to run, with the accuracy of the estimates."""
    left = [line for line in lines if line.status != "finished"]
    if not left:
        return "Nothing is left to run."
    known = [line.seconds for line in left if line.seconds is not None]
    unknown = len(left) - len(known)
    parts = f"about {duration(sum(known))}" if known else "no estimate"
    parts += f", and {unknown} of unknown length" if unknown and known else ""
    return (
        f"{len(left)} of {len(lines)} stages to run: {parts}. Times with ~ are rough estimates from the model's size; "
        "times without ~ were measured in this folder. Memory counts weights, optimiser and logits, not activations."
    )


def exempt(pipeline: Pipeline) -> str | None:
    """Return a note on stages that may not be bit-for-bit reproducible, or None if all stages are."""
    drawn: dict[str, list[str]] = {}
    overlapped = []
    for node in pipeline.nodes:
        if any(training.config.overlaps for training in node.config.trainings()):
            overlapped.append(node.id)
        for backend in dict.fromkeys(sampler.backend for sampler in _samplers(node.config)):
            if backend != "transformers":
                drawn.setdefault(backend, []).append(node.id)
    if not drawn:
        return None
    stages = "; ".join(f"{', '.join(ids)} (sampler: {backend})" for backend, ids in drawn.items())
    again = f"; when {', '.join(overlapped)} continues, one step is sampled from newer weights" if overlapped else ""
    return (
        "Runs with the same seed, continued or not, give bit-identical results, except for rounding differences in "
        f"{stages}{again}."
    )


def _samplers(config: BaseModel) -> Iterator[SamplerConfig]:
    """Yield every sampler in a stage's configuration, also from nested models."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, SamplerConfig):
            yield value
        elif isinstance(value, BaseModel):
            yield from _samplers(value)


def count(number: int | None) -> str:
    """Return a count as short text such as `1.4M`, `270M` or `1B`; `?` for None."""
    if number is None:
        return "?"
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g}{unit}"
    return str(number)


def size(number: float) -> str:
    """Return a number of bytes as text such as `120 MB` or `3.4 GB`."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def _seconds_before(run: Path, node: Node) -> float | None:
    """Return the seconds of the stage's newest finished run with other settings, scaled by its steps; None if none."""
    newest: tuple[float, float] | None = None
    for path in (run / "stages").glob(f"{node.id}-????????/stage.json"):
        with suppress(UserError), reading(path, "the record of a stage", ""):  # else this estimate goes without it
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["status"] != "finished" or record["kind"] != node.kind:
                continue
            if newest is None or path.stat().st_mtime > newest[0]:
                newest = (path.stat().st_mtime, float(record["seconds"]) * _more_steps(node, record["config"]))
    return newest[1] if newest else None


def _more_steps(node: Node, before: Mapping[str, Any]) -> float:
    """Return the ratio of a stage's steps to the steps in an earlier record of it; 1 if unknown."""
    for training in node.config.trainings():
        recorded = (before.get(training.field) or {}) if training.field else before
        if steps := recorded.get("steps"):
            return float(training.config.steps / steps)
    return 1.0
