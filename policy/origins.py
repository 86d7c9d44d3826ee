"""Properties of a stage's policy that follow from earlier stages before any has run."""

from collections.abc import Mapping
from pathlib import Path

from gemsmith.contracts.stage import StageConfig
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.sizes import context_of


def origin_of(config: StageConfig, stages: Mapping[str, StageConfig]) -> PolicyConfig | None:
    """Return the name of the weights that a stage's policy descends from, which have its tokenizer; None without a
    policy.

    Args:
        config: the stage, with the recipe's policy filled in.
        stages: all stages by id, likewise.
    """
    policy: PolicyConfig | None = config.start
    while policy is not None and policy.from_ is not None:
        policy = stages[policy.from_].start
    return policy


def inherited_context(config: StageConfig, stages: Mapping[str, StageConfig], root: Path) -> int | None:
    """Return the context of a stage's policy in tokens; None if it is unknown, or a stage rescales it.

    Args:
        config: the stage, with the recipe's policy filled in.
        stages: all stages by id, likewise.
        root: the recipe's folder.
    """
    policy: PolicyConfig | None = config.start
    while policy is not None and policy.from_ is not None and policy.rope is None:
        policy = stages[policy.from_].start
    return context_of(policy, root) if policy is not None else None
