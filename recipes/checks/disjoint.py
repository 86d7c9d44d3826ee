"""The check that no evaluation prompt was trained on, and that no split is empty, made on the data itself."""

from collections.abc import Sequence

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.checks.routes import check_rows
from gemsmith.recipes.pipeline.generated import asked
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.recipes.pipeline.pipeline import Pipeline

EXAMPLE_LENGTH = 80


def check_data(pipeline: Pipeline, waiting: Sequence[Node]) -> None:
    """Load the data of every stage, and compare its tasks with its rewards', and evaluation prompts with training ones.

    Nothing is loaded when no waiting stage reads data. Answers that a stage writes count as all the prompts it asks.

    Raises:
        UserError: a stage's side of the split is empty, an evaluation prompt is also a training prompt, or a waiting
            stage has a row without a reward; see `gemsmith.recipes.checks.routes.check_rows`.
    """
    if not any(node.data for node in waiting):
        return
    from gemsmith.curation.load import load_data

    sections = dict.fromkeys(name for node in pipeline.nodes for name in node.data)
    splits = {
        name: load_data(asked(pipeline.data[name]), name=name, seed=pipeline.seed, root=pipeline.root)
        for name in sections
    }
    trained: dict[str, tuple[str, str]] = {}
    for node in pipeline.nodes:
        if node.config.produces == "scores":
            continue
        for name in node.data:
            split = splits[name]
            if not split.train:
                raise UserError(_empty(node, name, "training", split.dropped))
            for example in split.train:
                trained.setdefault(example.conversation, (node.id, name))
    for node in pipeline.nodes:
        if node.config.produces != "scores":
            continue
        for name in node.data:
            split = splits[name]
            if not split.test:
                raise UserError(_empty(node, name, "held-out", split.dropped))
            seen = {example.conversation: trained.get(example.conversation) for example in split.test}
            shared = {prompt: place for prompt, place in seen.items() if place is not None}
            if shared:
                prompt, (stage, section) = next(iter(shared.items()))
                raise UserError(
                    f"stage {node.id}: {len(shared)} of {len(seen)} held-out prompts of data.{name} are training "
                    f'prompts of stage {stage} (data.{section}), such as "{_cut(prompt)}"; expected none: give one '
                    "of the two sections other prompts"
                )
    check_rows([node.config for node in waiting], pipeline.rewards, splits.__getitem__)


def normalised(prompt: str) -> str:
    """The prompt without differences of white space, which make no other question of it."""
    return " ".join(prompt.split())


def _empty(node: Node, name: str, side: str, dropped: dict[str, int]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
    cause = f" (dropped: {reasons})" if reasons else ""
    return f"stage {node.id}: data.{name} has no {side} prompts{cause}, expected at least one; see its size and holdout"


def _cut(text: str) -> str:
    line = normalised(text)
    return line if len(line) <= EXAMPLE_LENGTH else line[: EXAMPLE_LENGTH - 3] + "..."
