"""Check, on the loaded data, that no evaluation prompt is a training prompt and that no split is empty."""

from collections.abc import Sequence

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.checks.routes import check_rows
from gemsmith.recipes.pipeline.generated import asked
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.recipes.pipeline.pipeline import Pipeline

EXAMPLE_LENGTH = 80


def check_data(pipeline: Pipeline, waiting: Sequence[Node]) -> None:
    """Load the data of every stage, compare its tasks with its rewards, and evaluation prompts with training prompts.

    Nothing is loaded if no waiting stage reads data. For generated data, all prompts of the generating stage count.

    Args:
        pipeline: the checked recipe.
        waiting: the stages that are about to run.

    Raises:
        UserError: the split that a stage uses is empty, an evaluation prompt is also a training prompt, or a waiting
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
                    f'prompts of stage {stage} (data.{section}), such as "{_cut(prompt)}"; expected none: use other '
                    "prompts in one of the two sections"
                )
    check_rows([node.config for node in waiting], pipeline.rewards, splits.__getitem__)


def normalised(prompt: str) -> str:
    """Return the prompt with each run of white space replaced by one space."""
    return " ".join(prompt.split())


def _empty(node: Node, name: str, side: str, dropped: dict[str, int]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
    cause = f" (dropped: {reasons})" if reasons else ""
    return (
        f"stage {node.id}: data.{name} has no {side} prompts{cause}, expected at least one; check the section's size "
        "and holdout"
    )


def _cut(text: str) -> str:
    line = normalised(text)
    return line if len(line) <= EXAMPLE_LENGTH else line[: EXAMPLE_LENGTH - 3] + "..."
