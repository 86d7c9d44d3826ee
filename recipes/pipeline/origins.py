"""Where a stage's policy comes from, through any number of stages, and what is known of it before any has run."""

from collections.abc import Mapping
from pathlib import Path

from gemsmith.contracts.stage import StageConfig
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.sizes import context_of


def origin_of(config: StageConfig, configs: Mapping[str, StageConfig]) -> PolicyConfig | None:
    """The weights by name that a stage's policy descends from, whose tokenizer it has; None where it has no policy.

    Args:
        config: of the stage, with the recipe's policy filled in.
        configs: all stages by their ids, in the same way.
    """
    policy: PolicyConfig | None = getattr(config, "policy", None)
    while policy is not None and policy.from_ is not None:
        policy = getattr(configs[policy.from_], "policy", None)
    return policy


def inherited_context(config: StageConfig, configs: Mapping[str, StageConfig], root: Path) -> int | None:
    """Tokens that a stage's policy can look back on; None where nothing tells, or a stage on the way rescales it."""
    policy: PolicyConfig | None = getattr(config, "policy", None)
    while policy is not None and policy.from_ is not None and policy.rope is None:
        policy = getattr(configs[policy.from_], "policy", None)
    return context_of(policy, root) if policy is not None else None
