"""Whether prompts and their completions fit a model's context together; the same question for every sampler."""

from collections.abc import Sequence

from contracts.errors import UserError


def check_lengths(prompts: Sequence[Sequence[int]], max_tokens: int, context: int) -> None:
    """Refuse prompts that leave no room for `max_tokens` tokens in a context of so many tokens.

    Raises:
        UserError: the longest prompt is too long.
    """
    longest = max((len(prompt) for prompt in prompts), default=0)
    if longest + max_tokens > context:
        raise UserError(
            f"A prompt of {longest} tokens and max_tokens {max_tokens} exceed the model's context of {context} tokens: "
            "lower max_tokens or leave long prompts out."
        )
