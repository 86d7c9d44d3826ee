"""What a run would do, before anything runs: each stage's state, size, memory and time."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.table import Table

from gemsmith.policy.config import PolicyConfig, TrainingConfig
from gemsmith.policy.sizes import Shape, shape_of
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.recipes.pipeline.pipeline import Pipeline
from gemsmith.recipes.run.machine import cores, gpus
from gemsmith.recipes.run.record import Status, read_stage
from gemsmith.recipes.run.view import duration
from gemsmith.reward_models.config import WarmStage
from gemsmith.rl.algorithms.config import BondAlgorithm, ReinforceAlgorithm, RolloutConfig
from gemsmith.rl.rewards.config import RewardModelReward
from gemsmith.rl.stages.distill.config import DistillStage
from gemsmith.rl.stages.generate.config import GenerateStage
from gemsmith.rl.stages.qat.config import QatStage
from gemsmith.rl.stages.teacher_cache.config import TeacherCacheStage
from gemsmith.rl.stages.warp.config import WarpStage

# Measured on two AVX2 cores in float32: 60 training tokens/s and 47 sampled tokens/s at 270 million parameters.
TRAINING_FLOPS = 48e9  # a second and core
SAMPLING_FLOPS = 13e9
# Tokens of an example where nothing tells them: sums on `tiny`, a question and its answer elsewhere.
TYPICAL_TOKENS = {True: 16, False: 256}
PROMPTS = 300  # of a section, likewise
ADAM_BYTES = 16  # of a trained weight in float32: itself, its gradient, two moments
WEIGHT_BYTES = 4


@dataclass(frozen=True)
class Forecast:
    """One line of the plan; what cannot be told is None."""

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
    """A line for each stage, in the order to run them."""
    shapes: dict[str, Shape | None] = {}
    lines = []
    for node in pipeline.nodes:
        policy = getattr(node.config, "policy", None)
        shape = _shape(policy, shapes, pipeline.root) if isinstance(policy, PolicyConfig) else None
        if node.config.produces == "scores":
            shape = next((shapes[name] for name in node.inputs if shapes.get(name)), None)
        shapes[node.id] = shape
        record = read_stage(run / pipeline.folder(node))
        seconds, measured = record.seconds, True
        if record.status != "finished":
            before = _seconds_before(run, node)
            seconds, measured = (before, True) if before else (_guess(node, shape, shapes, pipeline), False)  # type: ignore[assignment]
        training = _training(node.config)
        trained = None
        if shape is not None and training is not None:
            trained = shape.adapters(training.lora.rank) if training.lora else shape.parameters
        memory = _memory(node, shape, trained, shapes, pipeline)
        parameters = shape.parameters if shape else None
        lines.append(
            Forecast(node.id, node.kind, node.inputs, record.status, parameters, trained, memory, seconds, measured)
        )
    return lines


def plan_table(lines: list[Forecast]) -> Table:
    """The plan as a table for a terminal."""
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
    """One sentence on what is left, and what the estimates are worth."""
    left = [line for line in lines if line.status != "finished"]
    if not left:
        return "Nothing is left to run."
    known = [line.seconds for line in left if line.seconds is not None]
    unknown = len(left) - len(known)
    parts = f"about {duration(sum(known))}" if known else "no estimate"
    parts += f", and {unknown} of unknown length" if unknown and known else ""
    return (
        f"{len(left)} of {len(lines)} stages to run: {parts}. A time with ~ is a rough guess from the model's size; "
        "one without was measured in this folder. Memory counts weights, optimiser and logits, not activations."
    )


def exempt(pipeline: Pipeline) -> str | None:
    """Which stages may not come out bit for bit the same when they are continued, or run again; none: all do."""
    drawn: dict[str, list[str]] = {}
    overlapped = []
    for node in pipeline.nodes:
        config = getattr(node.config, "inner", node.config)
        sampler = getattr(config, "sampler", None)
        if getattr(config, "overlap", False):
            overlapped.append(node.id)
        if sampler is not None and sampler.backend != "transformers":
            drawn.setdefault(sampler.backend, []).append(node.id)
    if not drawn:
        return None
    stages = "; ".join(f"{', '.join(ids)} (sampler: {backend})" for backend, ids in drawn.items())
    again = f"; where {', '.join(overlapped)} continues, one step is drawn from newer weights" if overlapped else ""
    return (
        f"The same seed gives the same bits and a continued run those of a whole one, except for rounding in {stages}"
        f"{again}."
    )


def count(number: int | None) -> str:
    """`1.4M`, `270M`, `1.00B`."""
    if number is None:
        return "?"
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g}{unit}"
    return str(number)


def size(number: float) -> str:
    """Bytes as `120 MB` or `3.4 GB`."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def _training(config: BaseModel) -> TrainingConfig | None:
    """A stage's training settings: its own, or those of the algorithm inside it."""
    if isinstance(config, TrainingConfig):
        return config
    inner = getattr(config, "inner", None)
    return inner if isinstance(inner, TrainingConfig) else None


def _shape(policy: PolicyConfig, shapes: Mapping[str, Shape | None], root: Path) -> Shape | None:
    return shapes.get(policy.from_) if policy.from_ else shape_of(policy, root)


def _memory(
    node: Node, shape: Shape | None, trained: int | None, shapes: Mapping[str, Shape | None], pipeline: Pipeline
) -> float | None:
    """Bytes of weights, optimiser and logits at once; over all processes."""
    if shape is None:
        return None
    training = _training(node.config)
    judges = WEIGHT_BYTES * sum(_judges(node.rewards, shapes, pipeline))
    if training is None:
        alone = isinstance(node.config, GenerateStage | TeacherCacheStage)
        models = 1 if alone else 2  # evaluation and export hold two
        return float(WEIGHT_BYTES) * (models * shape.parameters + sum(_teachers(node, shapes, pipeline))) + judges
    frozen = shape.parameters if training.lora else 0
    total = float(WEIGHT_BYTES * frozen + ADAM_BYTES * (trained or 0))
    total += WEIGHT_BYTES * sum(_teachers(node, shapes, pipeline))
    if isinstance(node.config, QatStage):
        total += 2 * WEIGHT_BYTES * shape.parameters  # the unquantised policy, and the quantised copy of the weights
    if isinstance(training, DistillStage):
        total += judges
    if isinstance(training, RolloutConfig):
        total += 2 * WEIGHT_BYTES * (trained or 0) + judges  # the initial policy and the anchor
        if isinstance(training, BondAlgorithm) and training.quantile == "classifier":
            total += ADAM_BYTES * (trained or 0)
    rows = training.micro_batch or training.batch
    tokens = min(training.max_length, TYPICAL_TOKENS[_is_tiny(shape)])
    return total + 2.0 * WEIGHT_BYTES * rows * tokens * shape.vocabulary


def _teachers(node: Node, shapes: Mapping[str, Shape | None], pipeline: Pipeline) -> list[int]:
    """Parameters of every teacher that is in memory; one whose targets were written before is not."""
    written = {other.id for other in pipeline.nodes if other.config.produces == "targets"}
    loaded = [share.teacher.loaded for share in getattr(node.config, "shares", [])]
    asked = [teacher for teacher in loaded if teacher is not None and teacher.from_ not in written]
    found = [_shape(teacher, shapes, pipeline.root) for teacher in asked]
    return [shape.parameters for shape in found if shape is not None]


def _judges(names: Sequence[str], shapes: Mapping[str, Shape | None], pipeline: Pipeline) -> list[int]:
    """Parameters of every reward model that these rewards hold: the average, or each of the kept members."""
    found = []
    stages = {node.id: node.config for node in pipeline.nodes}
    for name in names:
        reward = pipeline.rewards[name]
        model = shapes.get(reward.from_) if isinstance(reward, RewardModelReward) else None
        if model is None:
            continue
        warm, models = stages[reward.from_], 1
        if isinstance(warm, WarmStage) and reward.serve != "average":
            models = min(warm.keep or warm.members, warm.members)
        found += [model.parameters] * models
    return found


def _guess(node: Node, shape: Shape | None, shapes: Mapping[str, Shape | None], pipeline: Pipeline) -> float | None:
    """Seconds on this machine's cores, within a factor of a few; None where a GPU of unknown speed would run it."""
    if shape is None or gpus():
        return None
    flops = 2.0 * shape.parameters
    training = _training(node.config)
    asking = 2.0 * sum(_teachers(node, shapes, pipeline))
    if isinstance(node.config, TeacherCacheStage):
        return 2.0 + PROMPTS * TYPICAL_TOKENS[_is_tiny(shape)] * asking / (TRAINING_FLOPS * cores())
    if training is None:
        samples, policies = getattr(node.config, "samples", 0) + 1, len(getattr(node.config, "policies", []))
        if isinstance(node.config, GenerateStage):
            samples, policies = node.config.samples, 1
        prompts = (getattr(node.config, "prompts", None) or PROMPTS) * policies
        tokens = prompts * samples * _new_tokens(node.config, shape)
        judged = tokens * 2 * sum(_judges(node.rewards, shapes, pipeline)) / (TRAINING_FLOPS * cores())
        return 2.0 + tokens * flops / (SAMPLING_FLOPS * cores()) + judged
    examples, judged = float(training.steps * training.batch), 0.0
    tokens = min(training.max_length, TYPICAL_TOKENS[_is_tiny(shape)])
    own, drawn, learnt = _completions(training)
    if isinstance(training, RolloutConfig | DistillStage):
        judging = 2.0 * drawn * sum(_judges(training.rewards, shapes, pipeline))
        control = training.control if isinstance(training, RolloutConfig) else ()
        judging += 2.0 * own * sum(_judges(control, shapes, pipeline))  # the policy's own alone
        judged = examples * tokens * judging
    seconds = (examples * learnt * tokens * (3 * flops + asking) + judged) / (TRAINING_FLOPS * cores())
    seconds += examples * drawn * _new_tokens(training, shape) * flops / (SAMPLING_FLOPS * cores())
    if isinstance(node.config, WarpStage):
        seconds *= sum(run.steps for run in node.config.run_configs) / training.steps
    return 2.0 + seconds * getattr(node.config, "members", 1)


def _completions(training: TrainingConfig) -> tuple[float, float, float]:
    """Completions of the policy for an example, those drawn in all, and the forward and backward passes over them.

    Of a distillation the mean over its steps, of which a share is on the student's own completions.
    """
    if isinstance(training, DistillStage):
        drawn = training.on_policy * training.completions_per_prompt
        return drawn, drawn, 1.0 - training.on_policy + drawn
    if isinstance(training, ReinforceAlgorithm):
        most = training.samples * training.turns
        return most, most, most
    if isinstance(training, BondAlgorithm):  # the policy's, the anchor's best, one that is scored twice; a classifier's
        return 1, training.completions_per_prompt, 3 + (training.quantile == "classifier")
    return 0, 0, 1


def _new_tokens(config: BaseModel, shape: Shape) -> int:
    sampling: Any = getattr(config, "sampling", None)
    return min(sampling.max_tokens, TYPICAL_TOKENS[_is_tiny(shape)]) if sampling else 0


def _is_tiny(shape: Shape) -> bool:
    return shape.vocabulary < 10_000


def _seconds_before(run: Path, node: Node) -> float | None:
    """What this stage took before in this folder under another identity, scaled by its steps; None if it never did."""
    training = _training(node.config)
    newest: tuple[float, float] | None = None
    for path in (run / "stages").glob(f"{node.id}-????????/stage.json"):
        try:
            record = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if record["status"] != "finished" or record["kind"] != node.kind:
            continue
        steps = record["config"].get("steps") or record["config"].get("inner", {}).get("steps")
        ratio = training.steps / steps if training and steps else 1.0
        if newest is None or path.stat().st_mtime > newest[0]:
            newest = (path.stat().st_mtime, record["seconds"] * ratio)
    return newest[1] if newest else None
