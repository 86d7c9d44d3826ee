"""Data that a stage of the same recipe generates: an edge in the graph, from that stage to the stages that read it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gemsmith.curation.config import Generated, GeneratedData, Mixture
from gemsmith.recipes.pipeline.graph import Node


def with_prompts(data: Mapping[str, Any], nodes: Sequence[Node]) -> dict[str, Any]:
    """Return the data sections, with each generated section's prompt section resolved, recursively.

    Args:
        data: sections by name; mixtures already contain their parts.
        nodes: the stages; their graph must have no cycle.
    """
    stages = {node.id: node for node in nodes}

    def whole(config: Any) -> Any:
        if isinstance(config, Mixture):
            return _mapped(config, whole)
        if not isinstance(config, GeneratedData):
            return config
        section = whole(data[stages[config.from_].data[0]])
        return Generated.model_validate({"source": "generated", "from": config.from_, "section": section})

    return {name: whole(config) for name, config in data.items()}


def asked(config: Any) -> Any:
    """Replace generated sections by the section of their prompts: a superset of the prompts with kept answers."""
    if isinstance(config, Mixture):
        return _mapped(config, asked)
    return asked(config.section) if isinstance(config, Generated) else config


def bound(config: Any, outputs: Mapping[str, Path]) -> Any:
    """Set the folders that generated answers are read from; `outputs` holds each stage's output folder by id."""
    if isinstance(config, Mixture):
        return _mapped(config, lambda part: bound(part, outputs))
    if not isinstance(config, Generated):
        return config
    return config.model_copy(update={"folder": outputs[config.from_], "section": asked(config.section)})


def _mapped(config: Mixture, change: Any) -> Mixture:
    return config.model_copy(update={"sections": {name: change(part) for name, part in config.sections.items()}})
