"""One stage of a pipeline: the argument of the stage's function, and the call of that function."""

import importlib
from pathlib import Path

from gemsmith.contracts.stage import ProgressSink, Silence, Stage
from gemsmith.recipes.pipeline.generated import bound
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.recipes.pipeline.pipeline import Pipeline


def make_stage(pipeline: Pipeline, node: Node, run: Path, sink: ProgressSink | None = None) -> Stage:
    """Return the argument of a stage's function: its folder, inputs, data, rewards and engine."""
    outputs = {other.id: run / pipeline.folder(other) / "output" for other in pipeline.nodes}
    return Stage(
        id=node.id,
        folder=run / pipeline.folder(node),
        seed=pipeline.seed,
        root=pipeline.root,
        inputs={name: outputs[name] for name in node.inputs},
        data={name: bound(pipeline.data[name], outputs) for name in node.data},
        rewards={name: pipeline.rewards[name] for name in node.rewards},
        engine=pipeline.engine,
        sink=sink or Silence(),
    )


def run_stage(node: Node, stage: Stage) -> None:
    """Import the function of the stage's kind, and call it."""
    stage.folder.mkdir(parents=True, exist_ok=True)
    module, _, function = type(node.config).entry.partition(":")
    getattr(importlib.import_module(module), function)(node.config, stage)
