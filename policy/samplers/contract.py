"""What every sampler takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from gemsmith.contracts.errors import UserError

Weights = Literal["policy", "anchor"]
Finish = Literal["stop", "length"]


@dataclass
class Samples:
    """Completions, prompt by prompt: entry `p * n + i` is the i-th of prompt p.

    `ids` include the token that ended the completion when `finish` is "stop". `logprobs` are of the drawn tokens, in
    nats, under the distribution they were drawn from (after temperature, top-k and top-p). `text` is without control
    tokens.
    """

    ids: list[list[int]]
    logprobs: list[list[float]]
    text: list[str]
    finish: list[Finish]


class Sampler(Protocol):
    """Whatever draws completions.

    Attributes:
        same_weights: it computes with the trainer's own tensors and forward pass, so that its log-probabilities are
            the trainer's, to rounding.
    """

    same_weights: bool

    def sync(self) -> None:
        """Take over the trainer's weights, and the anchor's where there is one, as they are now."""
        ...

    def close(self) -> None:
        """Leave nothing running; a second call does nothing."""
        ...

    def sample(
        self,
        prompts: list[list[int]],
        n: int,
        seed: int,
        weights: Weights = "policy",
        greedy: bool = False,
        before: int = 0,
    ) -> Samples:
        """Draw n completions of each prompt (token ids); the same seed draws the same ones.

        `before` counts completions under the same seed that stand before these, and that another process draws.
        """
        ...


@runtime_checkable
class ScoringSampler(Protocol):
    """A sampler that can also say how likely its weights find completions that it is given."""

    def score(
        self, prompts: list[list[int]], completions: list[list[int]], weights: Weights = "policy"
    ) -> list[list[float]]:
        """Log-probability of each completion token under the unprocessed distribution, in nats."""
        ...


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
