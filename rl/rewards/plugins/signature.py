"""Check of a python reward's signature against TRL's calling convention for reward functions."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Parameters:
    """Parameters of a function.

    Attributes:
        accepted: names of the parameters that can be passed by keyword.
        required: those of them without a default.
        any_keyword: True if the function has **kwargs.
        positional_only: names of positional-only parameters without a default.
    """

    accepted: list[str]
    required: list[str]
    any_keyword: bool
    positional_only: list[str]


def signature_fault(parameters: Parameters, options: dict[str, object]) -> str | None:
    """Return the fault of a reward function's signature that can be found without the data's columns, or None."""
    expected = "a reward is called as f(prompts=..., completions=..., **columns)"
    if parameters.positional_only:
        return f"parameter {parameters.positional_only[0]} is positional-only, but {expected}"
    if not parameters.any_keyword:
        if "completions" not in parameters.accepted:
            return f"the function takes {', '.join(parameters.accepted) or 'nothing'}, but not completions; {expected}"
        unknown = [name for name in options if name not in parameters.accepted]
        if unknown:
            takes = ", ".join(parameters.accepted)
            return f"the reward's option {unknown[0]!r} is not a parameter of the function, which takes {takes}"
    return None
