"""The reward of own.yaml."""


def short(completions: list[str], **columns: object) -> list[float]:
    """Return 1 for an empty completion, and less for a longer one."""
    return [1.0 / (1 + len(completion)) for completion in completions]
