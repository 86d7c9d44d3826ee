"""Whether prompts and their completions fit a model's context together; the same question for every sampler."""

from collections.abc import Sequence

from contracts.errors import UserError


def check_lengths(
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    context: int,
    whose: str = "the model's context",
    remedy: str = "lower max_tokens or leave long prompts out",
) -> None:
    """Refuse prompts that leave no room for `max_tokens` tokens.

    Args:
        prompts: token ids.
        max_tokens: longest completion.
        context: tokens that a prompt and its completion may have together.
        whose: what has that limit, for the error.
        remedy: what to do about it, for the error.

    Raises:
        UserError: the longest prompt is too long.
    """
    longest = max((len(prompt) for prompt in prompts), default=0)
    if longest + max_tokens > context:
        raise UserError(
            f"A prompt of {longest} tokens and max_tokens {max_tokens} exceed {whose} of {context} tokens: {remedy}."
        )
