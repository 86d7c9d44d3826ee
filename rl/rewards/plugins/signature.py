"""What a python reward's function must accept to be called as TRL calls reward functions."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Parameters:
    """What a function accepts: what it takes by keyword, what of that has no default, and whether it has **kwargs."""

    accepted: list[str]
    required: list[str]
    any_keyword: bool
    positional_only: list[str]


def signature_fault(parameters: Parameters, options: dict[str, object]) -> str | None:
    """What is wrong with a reward function's signature before its columns are known, or None."""
    expected = "a reward is called as f(prompts=..., completions=..., **columns)"
    if parameters.positional_only:
        return f"parameter {parameters.positional_only[0]} is positional-only, but {expected}"
    if not parameters.any_keyword:
        if "completions" not in parameters.accepted:
            return f"the function takes {', '.join(parameters.accepted) or 'nothing'}, but not completions; {expected}"
        unknown = [name for name in options if name not in parameters.accepted]
        if unknown:
            takes = ", ".join(parameters.accepted)
            return f"the reward's option {unknown[0]!r} is not a parameter of the function; it takes {takes}"
    return None
